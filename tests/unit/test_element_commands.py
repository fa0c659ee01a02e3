"""`dibble elements`, `dib-run-parts` and `package-installs-v2`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.element_trees import make_element

from dibble.cli import dib_run_parts, package_installs_v2
from dibble.cli.elements import elements as elements_group
from dibble.elements import engine_verbs, find
from dibble.errors import UsageError

pytestmark = pytest.mark.unit

README = """\
========
growroot
========

Grows the root file system on first boot. And more
of this.
"""


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "elements"
    make_element(
        root,
        "growroot",
        {"README.rst": README, "static/x": "", "install.d/20-data.txt": ""},
        deps=["install-static"],
        provides=["growing"],
        scripts=["install.d/10-b", "root.d/90-a", "cleanup.d/10-c"],
    )
    make_element(root, "install-static", {"README.rst": "==\nis\n==\nCopies things\n"})
    make_element(root, "silent")
    (tmp_path / "built-in").mkdir()
    monkeypatch.setattr(find, "BUILT_IN_ELEMENTS", tmp_path / "built-in")
    monkeypatch.setenv("ELEMENTS_PATH", str(root))
    return root


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(elements_group, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_elements_are_listed_with_their_first_sentence(catalogue: Path) -> None:
    assert invoke("list").splitlines() == [
        "growroot        Grows the root file system on first boot",
        "install-static  Copies things",
        "silent",
    ]
    listed = json.loads(invoke("list", "--json"))
    assert listed[0] == {
        "name": "growroot",
        "path": str(catalogue / "growroot"),
        "provides": ["growing"],
        "summary": "Grows the root file system on first boot",
    }


def test_an_element_is_shown_with_what_it_needs_provides_and_runs(catalogue: Path) -> None:
    shown = invoke("show", "growroot")
    assert f"in        {catalogue}/growroot" in shown
    assert "needs     install-static" in shown
    assert "provides  growing" in shown
    positions = [shown.index(script) for script in ("root.d/90-a", "install.d/10-b", "cleanup.d/10-c", "static/x")]
    assert positions == sorted(positions)
    assert shown.endswith(README)
    found = json.loads(invoke("show", "growroot", "--json"))
    assert list(found["hooks"]) == ["root.d", "install.d", "cleanup.d"]
    assert found["files"] == ["install.d/20-data.txt", "static/x"]


def test_an_unknown_element_is_answered_with_the_nearest(catalogue: Path) -> None:
    with pytest.raises(UsageError, match='unknown element "growrot"') as caught:
        invoke("show", "growrot")
    assert "growroot" in caught.value.hint


def test_dib_run_parts_becomes_the_shipped_script(tmp_path: Path) -> None:
    make_element(tmp_path, "e", {"p.d/20-data": ""}, scripts=["p.d/10-x", "p.d/9-y"])
    listing = [sys.executable, "-m", "dibble.cli.dib_run_parts", "--list", f"{tmp_path}/e/p.d"]
    source = str(Path(dib_run_parts.__file__).parents[2])
    done = subprocess.run(
        listing, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{tmp_path}/e/p.d/9-y", f"{tmp_path}/e/p.d/10-x"]


def test_dib_run_parts_without_bash_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/no/such/bash")
    assert dib_run_parts.main([]) == 1
    assert "cannot start /no/such/bash" in capsys.readouterr().err


# --- package-installs-v2

WANTED = {
    "install.d": {"install": [["vim", "a"], ["tool", "b"], ["vim", "b"]], "uninstall": [["gcc", "a"]]},
}


class Host:
    """A host with a package map and an `install-packages` that notes its arguments."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = root / "calls"
        self.list = root / "list.json"
        self.list.write_text(json.dumps(WANTED))
        (root / "maps").mkdir()
        (root / "maps/b").write_text('{"family": {"debian": {"tool": "one two"}}}')
        self.command(root, "exit 0")
        monkeypatch.setattr(engine_verbs, "PKG_MAPS", str(root / "maps"))
        monkeypatch.setenv("PATH", f"{root}/bin:/usr/bin:/bin")
        monkeypatch.setenv("DISTRO_NAME", "ubuntu")
        self.root = root

    def command(self, root: Path, end: str) -> None:
        (root / "bin").mkdir(exist_ok=True)
        program = root / "bin/install-packages"
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >> {self.calls}\n{end}\n')
        program.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_mapped_packages_are_installed_in_one_call(host: Host) -> None:
    assert package_installs_v2.main(["--phase", "install.d", str(host.list)]) == 0
    assert host.calls.read_text() == "vim one two\n"


def test_packages_are_uninstalled(host: Host) -> None:
    assert package_installs_v2.main(["--phase", "install.d", "--uninstall", str(host.list)]) == 0
    assert host.calls.read_text() == "-e gcc\n"


def test_noop_prints_the_command(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-n", "--noop"):
        assert package_installs_v2.main(["--phase", "install.d", option, str(host.list)]) == 0
        assert capsys.readouterr().out == "install-packages vim one two\n"
    assert not host.calls.exists()


def test_nothing_to_do_is_said(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert package_installs_v2.main(["--phase", "post-install.d", str(host.list)]) == 0
    assert capsys.readouterr().out == "Nothing to install in post-install.d\n"
    assert not host.calls.exists()


def test_any_failure_is_status_1(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--phase", "install.d", str(host.list)]
    host.command(host.root, "exit 7")
    assert package_installs_v2.main(arguments) == 1
    (host.root / "bin/install-packages").unlink()
    assert package_installs_v2.main(arguments) == 1
    assert "install-packages is not on PATH" in capsys.readouterr().err
    assert package_installs_v2.main(["--phase", "install.d", "/no/such/list"]) == 1
    assert "/no/such/list" in capsys.readouterr().err
    monkeypatch.delenv("DISTRO_NAME")
    assert package_installs_v2.main(arguments) == 1
    assert "DISTRO_NAME" in capsys.readouterr().err
