"""Libraries for another Python come through whatever pip the machine has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from dibble.errors import HostError
from dibble.sandbox.own_code import fetched_libraries

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

PIP = """#!/bin/sh
case $* in *--version) exit 0 ;; esac
while [ "$1" != --target ]; do shift; done
mkdir -p "$2"
printf '%s\\n' "$@" "${PYTHONPATH-unset}" > "$2/words"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own, and a Python that has no pip, as in an environment that the host's pip has filled."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_where_our_python_has_no_pip_the_hosts_is_taken(programs: Path, tmp_path: Path) -> None:
    pip = programs / "pip3"
    pip.write_text(PIP)
    pip.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": "/elsewhere"}
    found = fetched_libraries((3, 12), tmp_path / "place", environment)
    words = (found / "words").read_text().splitlines()
    assert words[:4] == ["--target", str(found), "--python-version", "3.12"]
    assert words[-1] == "unset", "the libraries of a host's tree are not this pip's"


def test_a_machine_without_pip_is_told_so(programs: Path, tmp_path: Path) -> None:
    for name in ("pip", "pip3"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    with pytest.raises(HostError, match="this machine has no pip") as error:
        fetched_libraries((3, 12), tmp_path / "place", {"PATH": str(programs)})
    assert "python3-pip" in error.value.hint
