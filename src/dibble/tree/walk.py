"""What the finished tree holds: how much space each file system needs for its part of it.

Counted from names and sizes alone, never from blocks on the host's own file system: the layout of an image must not
depend on where it was built.
"""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dibble.disk.model import ContentSize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BLOCK = 4096
"""Bytes of a block of every file system that dibble makes for content, unless options say otherwise."""
_FAST_LINK = 60  # bytes of a symbolic link's target that fit into an ext inode (kernel Documentation/ext4, "Symbolic")


def content_size(root: Path, mount_points: Sequence[str]) -> ContentSize:
    """Bytes and inodes below `root` by mount point; each entry counts for the deepest mount above it.

    A file with several links counts once. Points that are no path (`none`, for swap) are left out. Linear in entries.
    """
    points = sorted({_normal(point) for point in mount_points if point.startswith("/")} | {"/"})
    allocated = dict.fromkeys(points, 0)
    files = dict.fromkeys(points, 0)
    seen: set[tuple[int, int]] = set()
    for owner, status in _entries(root, set(points)):
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            number = (status.st_dev, status.st_ino)
            if number in seen:
                continue
            seen.add(number)
        files[owner] += 1
        allocated[owner] += _blocks(status) * BLOCK
    return ContentSize(allocated, files)


def _normal(point: str) -> str:
    return str(PurePosixPath("/" + point.strip("/")))


def _blocks(status: os.stat_result) -> int:
    if stat.S_ISREG(status.st_mode):
        return -(-status.st_size // BLOCK)
    if stat.S_ISDIR(status.st_mode):
        return 1
    return int(stat.S_ISLNK(status.st_mode) and status.st_size >= _FAST_LINK)


def _entries(root: Path, points: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below `root` (the root itself too), with the mount point that it belongs to."""
    yield "/", root.lstat()
    pending = [("", "/")]
    while pending:
        folder, owner = pending.pop()
        with os.scandir(f"{root}{folder}") as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                below = path if path in points else owner
                yield below, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append((path, below))
