"""File systems with what a build cannot put into them, read back: device nodes, a journal that is not played."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.inside import with_tools

from dibble.read.image import archive_image

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract


def read(toolbox: Toolbox, directory: Path, *questions: str) -> dict[str, tuple[bytes, int, int, int]]:
    """Make a file system, have debugfs change it, and read it: name → kind, mode, device numbers."""
    image, scratch = directory / "image.raw", directory / "scratch"
    scratch.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    toolbox.run(["mke2fs", "-q", "-F", "-t", "ext4", toolbox.path(image)])
    for question in questions:
        toolbox.run(["debugfs", "-w", "-R", question, toolbox.path(image)])
    said = archive_image(image, directory / "out.tar", toolbox, scratch)
    assert said == {"/": "the whole disk (ext)"}
    assert not [path for path in scratch.rglob("*") if path.is_file()]
    with tarfile.open(directory / "out.tar") as archive:
        return {one.name: (one.type, one.mode, one.devmajor, one.devminor) for one in archive}


def test_device_nodes_have_their_numbers(test_cache: Path, debian_packages: None) -> None:
    asked = ("mknod null c 1 3", "mknod disk b 240 200", "mkdir folder", "cd folder")
    found = with_tools(test_cache, lambda toolbox, directory: read(toolbox, directory, *asked))
    assert found["./null"][0::2] == (tarfile.CHRTYPE, 1)
    assert found["./null"][3] == 3
    assert found["./disk"][0] == tarfile.BLKTYPE
    assert found["./disk"][2:] == (240, 200)
    assert found["./folder"][0] == tarfile.DIRTYPE


def test_a_file_system_that_was_not_unmounted_is_read_after_its_journal(
    test_cache: Path, debian_packages: None
) -> None:
    found = with_tools(test_cache, lambda tools, place: read(tools, place, "mkdir folder", "feature needs_recovery"))
    assert set(found) == {".", "./folder"}
