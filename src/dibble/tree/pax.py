"""A tree as a stream of the POSIX (pax) format, for programs that make a file system of one.

The order does not depend on how the host lists directories.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dibble.errors import OutputError
from dibble.tree.inodes import attributes
from dibble.tree.ustar import BLOCK, HARD_LINK, TYPES, headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.tree.inodes import Inode

_READ = 1 << 20
HOLDS = frozenset(TYPES)
"""The kinds of inodes that an archive has a type for: all but sockets."""
_SECOND = 1_000_000_000


def stream(top: Inode, *, without: tuple[str, ...] = ()) -> Iterator[bytes]:
    """The archive, in pieces. Every kind of inode must be in HOLDS; OutputError for a file that becomes shorter.

    Attributes whose names begin with a text of `without` are left out.
    """
    written: dict[int, bytes] = {}
    waiting = [(b".", top)]
    while waiting:
        name, inode = waiting.pop()
        first = written.setdefault(id(inode), name)
        if first != name:
            yield _headers(name, HARD_LINK, inode, without, target=first)
            continue
        kind = TYPES[inode.kind]
        target = os.readlink(inode.path) if kind == b"2" else b""  # noqa: PTH115 - bytes
        size = inode.size if kind == b"0" else 0
        yield _headers(name + b"/" if kind == b"5" else name, kind, inode, without, size=size, target=target)
        if size:
            yield from _content(inode.path, size)
        waiting.extend((name + b"/" + below, child) for below, child in reversed(inode.entries))
    yield bytes(2 * BLOCK)


def _content(path: bytes, size: int) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        left = size
        while left:
            data = os.read(descriptor, min(left, _READ))
            if not data:
                raise OutputError(f"{os.fsdecode(path)} became shorter while it was read", hint="build again")
            left -= len(data)
            yield data
    finally:
        os.close(descriptor)
    yield bytes(-size % BLOCK)


def _headers(
    name: bytes, kind: bytes, inode: Inode, without: tuple[str, ...], *, size: int = 0, target: bytes = b""
) -> bytes:
    seconds, nanoseconds = divmod(inode.mtime, _SECOND)
    return headers(
        name,
        kind,
        mode=stat.S_IMODE(inode.mode),
        uid=inode.uid,
        gid=inode.gid,
        size=size,
        seconds=seconds,
        nanoseconds=nanoseconds,
        target=target,
        device=inode.rdev,
        attributes=[]
        if kind == HARD_LINK
        else [(text, value) for text, value in attributes(inode.path) if not text.startswith(without)],
    )
