"""Files of the caller as inputs of layers: what is compared, and where it is looked for."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dibble.run.host_files import KINDS, are_current, digest_of, places
from dibble.sandbox.opened import opened_below
from dibble.store.layers import Input

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def request_of(cwd: Path, name: str = "images/out") -> Any:
    return SimpleNamespace(cwd=cwd, name=name)


def test_a_working_directory_in_that_of_the_image_is_no_place_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert places(request_of(tmp_path, "out")) == {KINDS[0]: tmp_path}
    assert places(request_of(tmp_path / "a", "../out")) == {KINDS[0]: tmp_path}
    assert places(request_of(tmp_path, "a/out")) == {KINDS[0]: tmp_path / "a", KINDS[1]: tmp_path}


def test_files_count_by_content_and_directories_by_names_less_those_of_the_image(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("one")
    listing = digest_of(tmp_path, "out")
    inputs = [Input(KINDS[1], "x", digest_of(file, "out")), Input(KINDS[1], ".", listing)]
    request = request_of(tmp_path)
    assert are_current(request, inputs)
    (tmp_path / "out.qcow2").write_text("")
    assert are_current(request, inputs)
    (tmp_path / "y").write_text("")
    assert not are_current(request, inputs)
    (tmp_path / "y").unlink()
    file.write_text("two")
    assert not are_current(request, inputs)
    file.unlink()
    assert not are_current(request, [inputs[0]])
    assert are_current(request, [Input("apt", "http://mirror trixie", "d1")]), "others are not looked at"


def test_what_is_listened_to_ends_at_a_limit_and_leaves_out_what_is_skipped(tmp_path: Path) -> None:
    for name in ("a/deep", "b", "store"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
    with opened_below(tmp_path, not_watched=(), skip=[tmp_path / "store"], limit=3) as opened:
        for name in ("a/deep", "b", "store"):
            (tmp_path / name / "file").read_text()
    assert opened.files == {"b/file"}


def test_listening_ends_while_a_process_that_was_forked_meanwhile_goes_on(tmp_path: Path) -> None:
    read, write = os.pipe()
    with opened_below(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the test is over
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    os.close(read)
