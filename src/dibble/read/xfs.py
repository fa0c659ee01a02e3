"""XFS read without a kernel: the whole tree with owners, times, extended attributes, links and devices.

Version 5 with every form of directories, extents and attributes ("XFS Algorithms & Data Structures", 3rd edition, and
the kernel's fs/xfs/libxfs/xfs_format.h and xfs_da_format.h). Each block's checksum is compared.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from dibble.errors import ReadError
from dibble.read.entry import MOST_SPARSE, Entry, is_kept
from dibble.read.xfs_attributes import attributes_of
from dibble.read.xfs_blocks import BAD, Volume, mapped
from dibble.read.xfs_log import is_clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DEVICE, _LOCAL, _EXTENTS, _TREE = range(4)
_INODE_CORE, _INODE_CRC_AT = 176, 100
_BIG_TIME, _BIG_COUNTS, _REAL_TIME = 8, 16, 1
_BIG_TIME_BEGINS = -(1 << 31)  # seconds: what a time of 0 stands for
_LEAF_SPACE = 32 << 30  # bytes of a directory in which names are; hashes come behind them
_ENTRIES_AT, _DATA_CRC_AT = 64, 4
_UNUSED = 0xFFFF
_LINK_HEADER, _LINK_CRC_AT, _LONGEST_LINK = 56, 12, 1024
_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class _Inode:
    """What an inode says; `data` and `extra` are its forks as they stand in it."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    form: int
    data: bytes
    count: int
    extra_form: int
    extra: bytes
    extra_count: int


class XfsReader:
    """Reads the file system of `size` bytes at `offset` of a raw image; contents go into the directory `scratch`."""

    def __init__(self, image: Path, offset: int, size: int, scratch: Path) -> None:
        self._image = image
        self._offset = offset
        self._size = size
        self._scratch = scratch

    def entries(self) -> Iterator[Entry]:
        """Every entry, a directory before what is in it. Raises ReadError for what is damaged or not known."""
        with self._image.open("rb") as file:
            try:
                volume = Volume(file.fileno(), self._offset, self._size)
                if not is_clean(volume):
                    raise ReadError(
                        "the XFS file system was not unmounted: its log holds changes that are not in their places",
                        hint="mount it once and unmount it, which plays the log",
                    )
                yield from self._walk(volume)
            except (struct.error, IndexError, OverflowError) as error:
                raise ReadError(f"{BAD}: {error}") from error

    def _walk(self, volume: Volume) -> Iterator[Entry]:
        todo = [("", volume.root)]
        folders = {volume.root}
        contents: dict[int, Path | None] = {}
        while todo:
            path, number = todo.pop()
            inode = _inode(volume, number)
            kind = stat.S_IFMT(inode.mode)
            if kind == stat.S_IFREG and number not in contents:
                contents[number] = self._content(volume, inode)
            yield Entry(
                path,
                inode.mode,
                inode.uid,
                inode.gid,
                number,
                mtime=inode.mtime,
                content=contents.get(number),
                link=os.fsdecode(_link(volume, inode)) if kind == stat.S_IFLNK else "",
                device=_device(inode) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0),
                attributes=_attributes(volume, inode),
            )
            if kind != stat.S_IFDIR:
                continue
            below = []
            for name, child, is_folder in _names(volume, inode):
                if is_folder:
                    if child in folders:
                        raise ReadError(f"{BAD}: the directory /{path}/{os.fsdecode(name)} is in two places")
                    folders.add(child)
                below.append((f"{path}/{os.fsdecode(name)}".lstrip("/"), child))
            todo += reversed(below)

    def _content(self, volume: Volume, inode: _Inode) -> Path | None:
        if not inode.size:
            return None
        if inode.size > MOST_SPARSE * self._size:
            raise ReadError(f"{BAD}: the file of inode {inode.number} has {inode.size} bytes")
        target = self._scratch / f"inode-{inode.number}"
        with target.open("wb") as file:
            file.truncate(inode.size)
            for logical, fsblock, count in _extents(volume, inode):
                goal = logical * volume.block_size
                file.seek(goal)
                _copy(volume, volume.offset(fsblock), min(count * volume.block_size, inode.size - goal), file)
        return target


def _copy(volume: Volume, at: int, left: int, file: IO[bytes]) -> None:
    while left > 0:
        data = volume.bytes_at(at, min(left, _PIECE))
        file.write(data)
        at, left = at + len(data), left - len(data)


def _inode(volume: Volume, number: int) -> _Inode:
    data = volume.sealed(volume.inode_offset(number), volume.inode_size, _INODE_CRC_AT, b"IN")
    mode, version, form = struct.unpack_from(">HBB", data, 2)
    uid, gid = struct.unpack_from(">II", data, 8)
    (big_count,) = struct.unpack_from(">Q", data, 24)
    mtime_high, mtime_low = struct.unpack_from(">II", data, 40)
    (size,) = struct.unpack_from(">Q", data, 56)
    count, extra_count, fork_at, extra_form = struct.unpack_from(">IHBB", data, 76)
    (flags,) = struct.unpack_from(">H", data, 90)
    (more_flags,) = struct.unpack_from(">Q", data, 120)
    (own_number,) = struct.unpack_from(">Q", data, 152)
    if version != 3 or own_number != number:
        raise ReadError(f"{BAD}: inode {number} is not what leads to it")
    if stat.S_ISREG(mode) and flags & _REAL_TIME:
        raise ReadError("files of the XFS file system are on a real-time device, which is not read")
    if more_flags & _BIG_TIME:
        mtime = (mtime_high << 32 | mtime_low) / 1e9 + _BIG_TIME_BEGINS
    else:
        mtime = (mtime_high - (1 << 32) if mtime_high >> 31 else mtime_high) + mtime_low / 1e9
    if more_flags & _BIG_COUNTS:
        count, extra_count = big_count, count
    middle = _INODE_CORE + 8 * fork_at if fork_at else len(data)
    fork, extra = data[_INODE_CORE:middle], data[middle:]
    return _Inode(number, mode, uid, gid, size, mtime, form, fork, count, extra_form, extra, extra_count)


def _extents(volume: Volume, inode: _Inode) -> Iterator[tuple[int, int, int]]:
    return mapped(volume, inode.data, inode.form, inode.count)


def _device(inode: _Inode) -> tuple[int, int]:
    """The numbers of a node: 14 bits and 18 bits, as in System V."""
    (number,) = struct.unpack_from(">I", inode.data)
    return number >> 18, number & 0x3FFFF


def _link(volume: Volume, inode: _Inode) -> bytes:
    if not 0 < inode.size <= _LONGEST_LINK:
        raise ReadError(f"{BAD}: the symbolic link {inode.number} has {inode.size} bytes")
    if inode.form == _LOCAL:
        return inode.data[: inode.size]
    found = b""
    for _, fsblock, count in _extents(volume, inode):
        for block in range(count):
            if len(found) < inode.size:
                data = volume.sealed(volume.offset(fsblock + block), volume.block_size, _LINK_CRC_AT, b"XSLM")
                found += data[_LINK_HEADER:]
    if len(found) < inode.size:
        raise ReadError(f"{BAD}: the symbolic link {inode.number} is cut off")
    return found[: inode.size]


def _attributes(volume: Volume, inode: _Inode) -> dict[str, bytes]:
    if not inode.extra:
        return {}
    found = attributes_of(volume, inode.extra, inode.extra_form, inode.extra_count)
    return {name: value for name, value in found if is_kept(name)}


def _names(volume: Volume, inode: _Inode) -> Iterator[tuple[bytes, int, bool]]:
    """Name, inode and whether that is a directory, of all but `.` and `..`."""
    entries = _short_names(inode) if inode.form == _LOCAL else _long_names(volume, inode)
    for name, number, kind in entries:
        if name in (b".", b".."):
            continue
        if not name or b"/" in name or b"\0" in name:
            raise ReadError(f"{BAD}: a directory has the name {name!r}")
        yield name, number, kind == 2


def _short_names(inode: _Inode) -> Iterator[tuple[bytes, int, int]]:
    count, large = inode.data[0], inode.data[1]
    width = 8 if large else 4
    at = 2 + width
    for _ in range(count):
        length = inode.data[at]
        name = inode.data[at + 3 : at + 3 + length]
        at += 3 + length
        kind = inode.data[at]
        number = int.from_bytes(inode.data[at + 1 : at + 1 + width], "big")
        at += 1 + width
        if at > len(inode.data):
            raise ReadError(f"{BAD}: the directory {inode.number} is cut off")
        yield name, number, kind


def _long_names(volume: Volume, inode: _Inode) -> Iterator[tuple[bytes, int, int]]:
    step = volume.directory_size // volume.block_size
    place: dict[int, int] = {}
    for logical, fsblock, count in _extents(volume, inode):
        if logical * volume.block_size < _LEAF_SPACE:
            place.update((logical + number, fsblock + number) for number in range(count))
    for first in range(0, -(-inode.size // volume.block_size), step):
        blocks = [place[number] for number in range(first, first + step) if number in place]
        if not blocks:
            continue  # a block without names is given back
        if len(blocks) != step:
            raise ReadError(f"{BAD}: the directory {inode.number} lacks a block")
        data = b"".join(volume.bytes_at(volume.offset(block), volume.block_size) for block in blocks)
        volume.check(data, _DATA_CRC_AT, b"XDB3" if data[:4] == b"XDB3" else b"XDD3")
        yield from _names_in(data, inode.number)


def _names_in(data: bytes, folder: int) -> Iterator[tuple[bytes, int, int]]:
    end = len(data)
    if data[:4] == b"XDB3":  # the only block: the hashes stand at its end
        end -= 8 + 8 * struct.unpack_from(">I", data, end - 8)[0]
    at = _ENTRIES_AT
    while at < end:
        mark, free = struct.unpack_from(">2H", data, at)
        if mark == _UNUSED:
            if free < 8:
                raise ReadError(f"{BAD}: the directory {folder} has a hole of {free} bytes")
            at += free
            continue
        number, length = struct.unpack_from(">QB", data, at)
        if at + 10 + length > end:
            raise ReadError(f"{BAD}: a name in the directory {folder} is cut off")
        yield data[at + 9 : at + 9 + length], number, data[at + 9 + length]
        at += (12 + length + 7) & ~7
