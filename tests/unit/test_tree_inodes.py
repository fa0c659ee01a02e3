"""The tree as writers of file systems take it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dibble.errors import OutputError
from dibble.tree.inodes import GRANULE, inodes, stretches

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_hard_links_are_one_inode_and_times_end_at_the_epoch(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("x")
    os.link(tmp_path / "b" / "file", tmp_path / "a")
    os.utime(tmp_path / "a", (5, 5))
    top, *others = inodes(tmp_path, 1000)
    assert [name for name, _ in top.entries] == [b"a", b"b"]
    assert top.names == 3
    assert top.mtime == 1000 * 10**9
    file, folder = top.entries[0][1], top.entries[1][1]
    assert folder.entries == [(b"file", file)]
    assert (file.names, file.mtime, file.size) == (2, 5 * 10**9, 1)
    assert others == [file, folder]


@pytest.mark.parametrize("has_holes", [True, False])
def test_long_zeros_are_holes_however_they_are_stored(has_holes: bool, tmp_path: Path) -> None:
    content = b"a" * 10 + bytes(GRANULE * 40 - 10) + b"b" * GRANULE + bytes(GRANULE - 1) + b"c" + bytes(GRANULE * 3 + 7)
    path = tmp_path / "file"
    path.write_bytes(content)
    if has_holes:
        with path.open("wb") as file:
            for offset, piece in ((0, b"a" * 10), (GRANULE * 40, b"b" * GRANULE), (GRANULE * 42 - 1, b"c")):
                file.seek(offset)
                file.write(piece)
            file.truncate(len(content))
    found = list(stretches(os.fsencode(path), len(content)))
    assert [(offset, len(data)) for offset, data in found] == [(0, GRANULE), (GRANULE * 40, 2 * GRANULE)]
    assert all(content[offset : offset + len(data)] == data for offset, data in found)


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    with pytest.raises(OutputError, match="became shorter"):
        list(stretches(os.fsencode(tmp_path / "file"), 4))
