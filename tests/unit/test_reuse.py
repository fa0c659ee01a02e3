"""A result is taken over for another tree only when nothing that made it differs there."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from dibble.run.reuse import Trace, trace_from, trace_of, unaffected
from dibble.sandbox.opened import Opened, opened_below

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

TRACE = Trace(
    stack=("late/0", "@resolv-conf", "base/0"),
    files=frozenset({"etc/modules", "usr/bin/tool", "etc/hook"}),
    folders=frozenset({"etc/conf.d"}),
    texts=("etc/hook",),
)
BASE = {
    "etc/modules": "ext4\n",
    "usr/bin/tool": "binary",
    "etc/hook": "#!/bin/sh\ntest -e /etc/crypttab && echo yes\n",
    "etc/conf.d/one": "1",
    "etc/web": "old",
    "boot/vmlinuz": "kernel",
}


def layer(root: Path, name: str, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = root / name / "0" / "mnt" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    layer(tmp_path, "base", BASE)
    layer(tmp_path, "late", {"etc/web": "first"})
    layer(tmp_path, "own", {"boot/initrd.img": "x"})
    return tmp_path


def verdict(store: Path, files: dict[str, str], trace: Trace = TRACE) -> str | None:
    layer(store, "new", files)
    return unaffected(trace, ("new/0", "@resolv-conf", "base/0"), lambda name: store / name, ["own/0"])


def test_a_change_of_what_was_not_looked_at_does_not_matter(store: Path) -> None:
    assert verdict(store, {"etc/web": "second"}) is None
    assert verdict(store, {"srv/www/index.html": "new"}) is None


@pytest.mark.parametrize("path", ["etc/modules", "usr/bin/tool", "etc/hook"])
def test_a_change_of_a_file_that_was_opened_matters(store: Path, path: str) -> None:
    assert verdict(store, {path: "other"}) == path


def test_the_same_content_again_is_no_change(store: Path) -> None:
    assert verdict(store, {"etc/modules": "ext4\n"}) is None


def test_a_new_file_in_a_directory_that_was_listed_matters(store: Path) -> None:
    assert verdict(store, {"etc/conf.d/two": "2"}) == "etc/conf.d/two"


def test_another_content_in_a_listed_directory_does_not_matter_unless_it_was_opened(store: Path) -> None:
    assert verdict(store, {"etc/conf.d/one": "2"}) is None


def test_a_file_that_a_script_names_matters_though_it_was_not_there(store: Path) -> None:
    assert verdict(store, {"etc/crypttab": "x"}) == "etc/crypttab"


def test_a_file_that_the_step_itself_wrote_matters(store: Path) -> None:
    assert verdict(store, {"boot/initrd.img": "other"}) == "boot/initrd.img"


def test_another_mode_of_a_file_that_was_opened_matters(store: Path) -> None:
    layer(store, "new", {"etc/hook": BASE["etc/hook"]})
    (store / "new/0/mnt/etc/hook").chmod(0o755)
    assert verdict(store, {}) == "etc/hook"


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes whiteouts")
def test_a_removed_file_matters_when_it_was_opened(store: Path) -> None:
    layer(store, "new", {"etc/x": "x"})
    os.mknod(store / "new/0/mnt/etc/modules", 0o020000, 0)
    assert verdict(store, {}) == "etc/modules"


def test_a_directory_that_became_a_file_matters(store: Path) -> None:
    layer(store, "new", {"etc": "a file where a directory was"})
    assert verdict(store, {}) == "etc"


def test_a_trace_survives_json() -> None:
    assert trace_from(json.loads(json.dumps(TRACE.data()))) == TRACE
    assert trace_from(None) is None
    assert trace_from({"stack": []}) is None


def test_what_is_opened_is_heard_and_what_is_only_asked_for_is_not(tmp_path: Path) -> None:
    for path, text in BASE.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with opened_below(tmp_path) as opened:
        subprocess.run(
            ["sh", "-c", "cat etc/modules; ls etc/conf.d; test -e etc/web; [ -f nothing ]"],
            cwd=tmp_path,
            check=False,
            capture_output=True,
        )
    assert opened.complete
    assert opened.files == {"etc/modules"}
    assert opened.folders == {"etc/conf.d"}
    trace = trace_of(opened, tmp_path, ["base/0"])
    assert trace is not None
    assert trace.texts == ("etc/modules",)


def test_a_trace_that_misses_something_is_none(tmp_path: Path) -> None:
    assert trace_of(Opened(complete=False), tmp_path, []) is None
