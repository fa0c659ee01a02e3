"""Header blocks and records of the POSIX (pax) archive format: POSIX.1-2017, pax, "ustar Interchange Format"."""

from __future__ import annotations

import os
import stat
import zlib
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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
_DEVICES = (b"3", b"4")
HARD_LINK = b"1"
PAX = b"x"
_MOST_SIZE, _MOST_ID = 8**11, 8**7
"""What fields of 12 and of 8 octal digits, the last a NUL, cannot hold."""


def headers(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    nanoseconds: int = 0,
    target: bytes = b"",
    device: int = 0,
    attributes: Iterable[tuple[str, bytes]] = (),
) -> bytes:
    """The header block of an entry, and before it the records of what has no room there.

    `device` counts for device nodes only. A time is given to the nanosecond from 1970 on, to the second before:
    mkfs.erofs counts a fraction from the wrong side there.
    """
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if target and (len(target) > 100 or not target.isascii()):
        records[b"linkpath"] = target
    for key, number, limit in ((b"size", size, _MOST_SIZE), (b"uid", uid, _MOST_ID), (b"gid", gid, _MOST_ID)):
        if number >= limit:
            records[key] = b"%d" % number
    if nanoseconds and seconds >= 0:
        records[b"mtime"] = b"%d.%09d" % (seconds, nanoseconds)
    elif not 0 <= seconds < _MOST_SIZE:
        records[b"mtime"] = b"%d" % seconds
    for text, value in attributes:
        records[b"SCHILY.xattr." + os.fsencode(text)] = value
    block = ustar(
        name,
        kind,
        mode=mode,
        uid=uid,
        gid=gid,
        size=size,
        mtime=seconds,
        target=target,
        device=device if kind in _DEVICES else 0,
    )
    if not records:
        return block
    body = b"".join(pax_record(key, value) for key, value in records.items())
    own = ustar(b"./PaxHeaders/" + name.rstrip(b"/")[-80:], PAX, size=len(body), mtime=seconds)
    return own + body + bytes(-len(body) % BLOCK) + block


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
    begin = name[:100].ljust(100, b"\0")
    owner, owner_sum = _owner(mode, uid, gid)
    numbers = b"%011o\0%011o\0" % (_fitting(size, 12), _fitting(mtime, 12))
    rest, rest_sum = _rest(kind, target, device)
    return b"%b%b%b%06o\0 %b" % (begin, owner, numbers, _sum(begin) + owner_sum + _sum(numbers) + rest_sum, rest)


@cache
def _owner(mode: int, uid: int, gid: int) -> tuple[bytes, int]:
    """The fields from mode to group, and the sum of their bytes. There are few of these in a tree."""
    fields = b"%07o\0%07o\0%07o\0" % (_fitting(mode, 8), _fitting(uid, 8), _fitting(gid, 8))
    return fields, _sum(fields)


@lru_cache(64)
def _rest(kind: bytes, target: bytes, device: int) -> tuple[bytes, int]:
    """The fields behind the checksum, and the sum of their bytes with the checksum's own, which counts as spaces. User
    and group names are empty: owners are numbers."""
    fields = b"%b%bustar\00000%b%07o\0%07o\0%b" % (
        kind,
        target[:100].ljust(100, b"\0"),
        bytes(64),
        _fitting(os.major(device), 8),
        _fitting(os.minor(device), 8),
        bytes(167),  # no prefix
    )
    return fields, 8 * ord(" ") + _sum(fields[:256]) + _sum(fields[256:])


def _sum(data: bytes) -> int:
    """The sum of at most 256 bytes: the lower half of Adler-32 (RFC 1950), which begins at 1 and is modulo 65521."""
    return (zlib.adler32(data) & 0xFFFF) - 1


def _fitting(number: int, width: int) -> int:
    return number if 0 <= number < 8 ** (width - 1) else 0
