"""The finished tree as a file system writer wants it: inodes with their names, hard links joined.

Everything that makes the bytes of an image is taken from the content: times are the clamped modification times, as
access and change times say only how and when the tree was built.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.errors import OutputError
from dibble.store.sparse import data_ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
"""Numbers of kinds in the directories of xfs, btrfs and others (kernel include/linux/fs_types.h)."""
_FOREIGN = ("trusted.overlay.", "user.overlay.", "security.selinux")
"""Attributes of the overlay that the tree is seen through, and of the build machine's own policy."""

EMPTIED = (b"proc", b"sys")
"""Directories at the top that outputs of the tree hold without their content (contract.md 1.4)."""


@dataclass(slots=True, eq=False)
class Inode:
    """One inode. `path` is one of its names, in the view of this process; `number` is for the writer to set.

    `names` counts the directory entries that lead to it, in a directory those of `.` and of `..` too. `mtime` is in
    nanoseconds. `entries` are a directory's, sorted by the bytes of their names.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    rdev: int
    names: int
    parent: Inode | None
    entries: list[tuple[bytes, Inode]] = field(default_factory=list)
    number: int = 0

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)


def inodes(root: Path, epoch: int, *, emptied: Collection[bytes] = ()) -> list[Inode]:
    """Every inode below `root`, itself first, each directory before what it holds. No time is later than `epoch`.

    The directories right below the root that `emptied` names seem empty.
    """
    latest = epoch * 1_000_000_000
    path = os.fsencode(root)
    top = _inode(path, os.lstat(path), None, latest)
    found = [top]
    linked: dict[tuple[int, int], Inode] = {}
    waiting = [top]
    hidden = {path + b"/" + name for name in emptied}
    while waiting:
        folder = waiting.pop()
        if folder.path in hidden:
            continue
        below = []
        with os.scandir(folder.path) as listing:
            entries = sorted((entry.name, entry.path) for entry in listing)
        for name, path in entries:
            status = os.lstat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
            key = (status.st_dev, status.st_ino)
            inode = linked.get(key) if status.st_nlink > 1 and not is_directory else None
            if inode is None:
                inode = _inode(path, status, folder, latest)
                found.append(inode)
                if is_directory:
                    folder.names += 1
                    below.append(inode)
                elif status.st_nlink > 1:
                    linked[key] = inode
            else:
                inode.names += 1
            folder.entries.append((name, inode))
        waiting.extend(reversed(below))
    return found


def _inode(path: bytes, status: os.stat_result, parent: Inode | None, latest: int) -> Inode:
    return Inode(
        path,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        min(status.st_mtime_ns, latest),
        status.st_rdev,
        2 if stat.S_ISDIR(status.st_mode) else 1,
        parent,
    )


def attributes(path: bytes) -> list[tuple[str, bytes]]:
    """The extended attributes of a file that belong to the tree, sorted by name."""
    names = os.listxattr(path, follow_symlinks=False)
    return [
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(names)
        if not name.startswith(_FOREIGN)
    ]


GRANULE = 64 << 10
"""Bytes. Where content is all zero for so long, on a multiple of it, a writer leaves a hole.

Taken from the bytes and not from the holes of the file, which depend on where and how it was written.
"""
_READ = 16 * GRANULE
_ZEROS = bytes(GRANULE)


def stretches(path: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """The content of a file without its holes: (offset, bytes), at most 1 MiB each, offsets multiples of GRANULE.

    What the file system knows to be a hole is not read. Raises OutputError when the file is shorter than `size`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        offset = 0
        # To look for holes costs more than it saves where one read has all.
        for start, length in data_ranges(descriptor, 0, size) if size > _READ else [(0, size)]:
            offset = max(offset, start // GRANULE * GRANULE)
            while offset < start + length:
                wanted = min(_READ, size - offset)
                chunk = os.pread(descriptor, wanted, offset)
                if len(chunk) < wanted:
                    raise _shorter(path)
                yield from _without_zeros(offset, chunk)
                offset += wanted
        if os.fstat(descriptor).st_size < size:
            raise _shorter(path)
    finally:
        os.close(descriptor)


def _shorter(path: bytes) -> OutputError:
    return OutputError(f"{os.fsdecode(path)} became shorter while it was read", hint="build again")


def _without_zeros(offset: int, chunk: bytes) -> Iterator[tuple[int, bytes]]:
    begin = None
    for at in range(0, len(chunk), GRANULE):
        length = min(GRANULE, len(chunk) - at)
        zero = chunk.startswith(_ZEROS if length == GRANULE else _ZEROS[:length], at)
        if zero and begin is not None:
            yield offset + begin, chunk[begin:at]
            begin = None
        elif not zero and begin is None:
            begin = at
    if begin is not None:
        yield offset + begin, chunk[begin:] if begin else chunk
