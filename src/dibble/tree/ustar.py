"""Header blocks and records of the POSIX (pax) archive format: POSIX.1-2017, pax, "ustar Interchange Format"."""

from __future__ import annotations

import os
import stat

BLOCK = 512
TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
"""Kind of an inode → type flag; sockets have none."""
HARD_LINK = b"1"
PAX = b"x"


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a line end; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def ustar(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    device: int = 0,
) -> bytes:
    """A header block. What has no room in it is cut, because a pax record before it holds the whole."""
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(mode, 8),
            _octal(uid, 8),
            _octal(gid, 8),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,  # the checksum counts itself as spaces
            kind,
            target[:100].ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),  # user and group names: owners are numbers
            _octal(os.major(device), 8),
            _octal(os.minor(device), 8),
            bytes(167),  # no prefix
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    if not 0 <= number < 8 ** (width - 1):
        number = 0
    return b"%0*o\0" % (width - 1, number)
