"""A tree as a stream of the POSIX (pax) format, for programs that make a file system of one.

Times are given to the nanosecond from 1970 on, to the second before; the order does not depend on how the host lists
directories.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dibble.errors import OutputError
from dibble.tree.inodes import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.tree.inodes import Inode

_BLOCK = 512
_READ = 1 << 20
# ustar type flags, POSIX.1-2017 pax, "ustar Header Block"
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
HOLDS = frozenset(_TYPES)
"""The kinds of inodes that an archive has a type for: all but sockets."""
_SECOND = 1_000_000_000


def stream(top: Inode) -> Iterator[bytes]:
    """The archive, in pieces. Every kind of inode must be in HOLDS; OutputError for a file that becomes shorter."""
    written: dict[int, bytes] = {}
    waiting = [(b".", top)]
    while waiting:
        name, inode = waiting.pop()
        first = written.setdefault(id(inode), name)
        if first != name:
            yield _headers(name, b"1", inode, target=first)
            continue
        kind = _TYPES[inode.kind]
        target = os.readlink(inode.path) if kind == b"2" else b""  # noqa: PTH115 - bytes
        size = inode.size if kind == b"0" else 0
        yield _headers(name + b"/" if kind == b"5" else name, kind, inode, size=size, target=target)
        if size:
            yield from _content(inode.path, size)
        waiting.extend((name + b"/" + below, child) for below, child in reversed(inode.entries))
    yield bytes(2 * _BLOCK)


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
    yield bytes(-size % _BLOCK)


def _headers(name: bytes, kind: bytes, inode: Inode, *, size: int = 0, target: bytes = b"") -> bytes:
    """The header block of an entry, and before it the records of what has no room there."""
    seconds, rest = divmod(inode.mtime, _SECOND)
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(target) > 100 or not target.isascii():
        records[b"linkpath"] = target
    if seconds < 0:  # mkfs.erofs counts a fraction from the wrong side here
        records[b"mtime"] = b"%d" % seconds
    elif rest or seconds >= 1 << 33:
        records[b"mtime"] = b"%d.%09d" % (seconds, rest)
    for key, number, limit in ((b"size", size, 1 << 33), (b"uid", inode.uid, 1 << 21), (b"gid", inode.gid, 1 << 21)):
        if number >= limit:
            records[key] = b"%d" % number
    if kind != b"1":
        for text, value in attributes(inode.path):
            records[b"SCHILY.xattr." + os.fsencode(text)] = value
    fields = (stat.S_IMODE(inode.mode), inode.uid, inode.gid, size, seconds)
    device = inode.rdev if kind in (b"3", b"4") else 0
    block = _block(name, kind, fields, target, device)
    if not records:
        return block
    body = b"".join(_record(key, value) for key, value in records.items())
    own = _block(b"./PaxHeaders/x", b"x", (0o644, 0, 0, len(body), 0), b"", 0)
    return own + body + bytes(-len(body) % _BLOCK) + block


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a line end; the length counts its own digits."""
    length = rest = len(key) + len(value) + 3
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(name: bytes, kind: bytes, fields: tuple[int, int, int, int, int], target: bytes, device: int) -> bytes:
    mode, uid, gid, size, mtime = fields
    block = b"".join((
        name[:100].ljust(100, b"\0"), _octal(mode, 8), _octal(uid, 8), _octal(gid, 8), _octal(size, 12),
        _octal(mtime, 12), b" " * 8, kind, target[:100].ljust(100, b"\0"), b"ustar\00000", bytes(64),
        _octal(os.major(device), 8), _octal(os.minor(device), 8), bytes(167),
    ))  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    if not 0 <= number < 8 ** (width - 1):
        number = 0
    return b"%0*o\0" % (width - 1, number)
