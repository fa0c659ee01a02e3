"""A tree as a POSIX (pax) archive, the same bytes for the same tree.

Our own writer, because the standard library's cannot store an extended attribute that is not UTF-8 without a header
that GNU tar warns about. Nothing is held but the names of files with several hard links.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, TypeAlias

from dibble.errors import OutputError
from dibble.tree.inodes import EMPTIED, attributes
from dibble.tree.ustar import BLOCK, HARD_LINK, TYPES, headers, ustar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dibble.events import RunningActivity
    from dibble.outputs.compressed import Put

RECORD = 20 * BLOCK  # GNU tar's blocking factor; an archive ends at a multiple of it
_BUFFER = 1 << 20
_STORED = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_EMPTIED = tuple(b"./" + name for name in EMPTIED)
Entry: TypeAlias = tuple[bytes, bytes, os.stat_result]
"""Name in the archive (`./usr`), path, status."""


class TarWriter:
    """Writes one archive, in pieces that `put` is given: views of two buffers in turn, so that it must have done with
    one when its next call returns. Owners are numbers, names begin with `./`, entries are sorted by name."""

    def __init__(self, put: Put, epoch: int, activity: RunningActivity | None = None) -> None:
        self._to = put
        self._epoch = epoch
        self._activity = activity
        self._buffer, self._other = (memoryview(bytearray(_BUFFER)) for _ in range(2))
        self._held = 0  # bytes in the first
        self._written = 0
        self._links: dict[tuple[int, int], bytes] = {}  # inodes with links still to come → the first name

    def write_tree(self, root: Path) -> None:
        self.write_entries(walk(root))

    def write_file(self, name: bytes, data: bytes) -> None:
        """Write a file that is nowhere else: root's, readable by all, of the year 1970. Before `write_entries`."""
        self._put(ustar(name, b"0", mode=0o644, size=len(data)))
        self._put(data + bytes(-len(data) % BLOCK))

    def write_entries(self, entries: Iterable[Entry]) -> None:
        """Write these, a directory before what it holds, and end the archive."""
        for name, path, status in entries:
            self._entry(name, path, status)
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-(self._written + self._held) % RECORD))
        self._flush()

    def _entry(self, name: bytes, path: bytes, status: os.stat_result) -> None:
        kind = TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return
        target = os.readlink(path) if kind == b"2" else b""  # noqa: PTH115 - bytes
        size = status.st_size if kind == b"0" else 0
        if kind != b"5" and status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            first = self._links.setdefault(inode, name)
            if first != name:
                kind, target, size = HARD_LINK, first, 0
        entry = headers(
            name + b"/" if kind == b"5" else name,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=size,
            seconds=min(status.st_mtime_ns // 1_000_000_000, self._epoch),
            target=target,
            device=status.st_rdev,
            attributes=() if kind == HARD_LINK else attributes_of(path),
        )
        self._put(entry)
        if size:
            self._content(path, size)

    def _content(self, path: bytes, size: int) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            left = size
            while left:
                begin = self._held
                count = os.readv(descriptor, (self._buffer[begin : begin + left],))
                if not count:
                    name = os.fsdecode(path)
                    raise OutputError(f"{name} became shorter while it was archived", hint="build again")
                left -= count
                self._held += count
                if self._held == _BUFFER:
                    self._flush()
        finally:
            os.close(descriptor)
        self._put(bytes(-size % BLOCK))

    def _put(self, data: bytes) -> None:
        begin, room = self._held, _BUFFER - self._held
        if len(data) >= room:
            self._buffer[begin:] = data[:room]
            self._held = _BUFFER
            self._flush()
            self._put(data[room:])
        elif data:
            self._held += len(data)
            self._buffer[begin : self._held] = data

    def _flush(self) -> None:
        self._to(self._buffer[: self._held])
        self._written += self._held
        self._buffer, self._other, self._held = self._other, self._buffer, 0
        if self._activity:
            self._activity.progress(self._written, unit="bytes")


def walk(root: Path) -> Iterator[Entry]:
    """Every entry of a tree, a directory before what it holds, each sorted by bytes."""
    waiting: list[tuple[bytes, bytes]] = [(b".", os.fsencode(root))]
    while waiting:
        name, path = waiting.pop()
        status = os.lstat(path)
        yield name, path, status
        if stat.S_ISDIR(status.st_mode) and not is_emptied(name):
            children = sorted(os.listdir(path), reverse=True)  # noqa: PTH208 - bytes, and many
            waiting.extend((name + b"/" + child, path + b"/" + child) for child in children)


def is_emptied(name: bytes) -> bool:
    """Whether a directory is stored without its content."""
    return name in _EMPTIED


def attributes_of(path: bytes) -> list[tuple[str, bytes]]:
    """The extended attributes that an archive holds, sorted by name: those that mean the same on every machine."""
    return [(name, value) for name, value in attributes(path) if name.startswith("user.") or name in _STORED]
