"""XFS as an array of blocks: the geometry, blocks whose checksum is right, and which blocks a fork maps."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from dibble.disk.crc32c import crc32c
from dibble.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD = "the XFS file system is damaged"
_HINT = "run xfs_repair on it"
_LONG_HEADER, _LONG_CRC_AT = 72, 64
_DEEPEST = 9  # levels of a tree of extents: XFS_BM_MAXLEVELS
_SUPERBLOCK, _SUPERBLOCK_CRC_AT = 512, 224
# sb_features_incompat: ftype, sparse inodes, meta_uuid, bigtime, needs repair, nrext64, exchange-range, parent, metadir
_READ_INCOMPAT = 0x1EF
_NEEDS_REPAIR = 0x10
_EXTENTS, _TREE = 2, 3


class Volume:
    """The file system at `base` of an open image, `size` bytes long. Numbers of blocks are those of the file system:
    the allocation group and the block in it side by side."""

    def __init__(self, descriptor: int, base: int, size: int) -> None:
        self._descriptor = descriptor
        self._base = base
        self._end = size
        start = self.bytes_at(0, _SUPERBLOCK)
        if start[:4] != b"XFSB":
            raise ReadError("this is no XFS file system")
        (version,) = struct.unpack_from(">H", start, 100)
        if version & 0xF != 5:
            raise ReadError(f"the XFS file system is of version {version & 0xF}, only 5 is read")
        (incompatible,) = struct.unpack_from(">I", start, 216)
        if incompatible & _NEEDS_REPAIR:
            raise ReadError("the XFS file system says that it needs repair", hint=_HINT)
        if incompatible & ~_READ_INCOMPAT:
            raise ReadError(f"the XFS file system has features that are not known: {incompatible & ~_READ_INCOMPAT:#x}")
        self.block_size: int
        self.inode_size: int
        self.group_blocks: int
        self._inodes_log: int
        self._group_log: int
        self.block_size, blocks = struct.unpack_from(">IQ", start, 4)
        self.log_start, self.root = struct.unpack_from(">2Q", start, 48)
        self.group_blocks, self.groups = struct.unpack_from(">2I", start, 84)
        (self.log_blocks,) = struct.unpack_from(">I", start, 96)
        sector_size, self.inode_size = struct.unpack_from(">2H", start, 102)
        block_log, _, _, self._inodes_log, self._group_log = struct.unpack_from(">5B", start, 120)
        self.directory_size = self.block_size << start[192]
        self.shown_uuid = start[32:48]
        self.uuid = start[248:264] if incompatible & 4 else self.shown_uuid
        if (
            not 512 <= self.block_size <= 65536
            or self.block_size != 1 << block_log
            or not 256 <= self.inode_size <= min(2048, self.block_size)
            or self.inode_size << self._inodes_log != self.block_size
            or not 512 <= sector_size <= 32768
            or not 0 < self.group_blocks <= 1 << self._group_log
            or self._group_log > 31
            or start[192] > 8
        ):
            raise ReadError(f"{BAD}: its superblock contradicts itself", hint=_HINT)
        if blocks * self.block_size > size:
            raise ReadError(f"{BAD}: it is larger than its partition")
        self.check(self.bytes_at(0, sector_size), _SUPERBLOCK_CRC_AT, b"XFSB")

    def offset(self, fsblock: int) -> int:
        """Bytes from the start of the file system."""
        group, block = fsblock >> self._group_log, fsblock & ((1 << self._group_log) - 1)
        if group >= self.groups or block >= self.group_blocks:
            raise ReadError(f"{BAD}: there is no block {fsblock}", hint=_HINT)
        return (group * self.group_blocks + block) * self.block_size

    def inode_offset(self, number: int) -> int:
        within = number & ((1 << self._inodes_log) - 1)
        return self.offset(number >> self._inodes_log) + within * self.inode_size

    def bytes_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._base + offset) if offset + size <= self._end else b""
        if len(data) != size:
            raise ReadError("the XFS file system is cut off")
        return data

    def sealed(self, offset: int, size: int, crc_at: int, magic: bytes) -> bytes:
        """A block whose mark and checksum are right."""
        data = self.bytes_at(offset, size)
        self.check(data, crc_at, magic)
        return data

    def check(self, data: bytes, crc_at: int, magic: bytes, magic_at: int = 0) -> None:
        (wanted,) = struct.unpack_from("<I", data, crc_at)
        marked = data[magic_at : magic_at + len(magic)] == magic
        if not marked or crc32c(data[:crc_at] + bytes(4) + data[crc_at + 4 :]) != wanted:
            what = "checksum" if marked else "mark"
            raise ReadError(f"{BAD}: a block has not the right {what} ({magic.hex()})", hint=_HINT)


def mapped(volume: Volume, fork: bytes, form: int, count: int) -> Iterator[tuple[int, int, int]]:
    """The written extents of a fork as (block of the file, block of the file system, number), in order."""
    if form == _EXTENTS:
        if 16 * count > len(fork):
            raise ReadError(f"{BAD}: an inode has {count} extents in {len(fork)} bytes")
        yield from _records(fork, 0, count)
    elif form == _TREE:
        level, records = struct.unpack_from(">2H", fork)
        most = (len(fork) - 4) // 16
        if not 0 < level <= _DEEPEST or records > most:
            raise ReadError(f"{BAD}: a tree of extents has {level} levels and {records} records")
        for fsblock in struct.unpack_from(f">{records}Q", fork, 4 + 8 * most):
            yield from _below(volume, fsblock, level - 1)
    else:
        raise ReadError(f"{BAD}: a fork has the form {form}")


def _below(volume: Volume, fsblock: int, level: int) -> Iterator[tuple[int, int, int]]:
    data = volume.sealed(volume.offset(fsblock), volume.block_size, _LONG_CRC_AT, b"BMA3")
    own_level, records = struct.unpack_from(">2H", data, 4)
    most = (volume.block_size - _LONG_HEADER) // 16
    if own_level != level or records > most:
        raise ReadError(f"{BAD}: a tree of extents has a block of level {own_level} where {level} should be")
    if level == 0:
        yield from _records(data, _LONG_HEADER, records)
        return
    for child in struct.unpack_from(f">{records}Q", data, _LONG_HEADER + 8 * most):
        yield from _below(volume, child, level - 1)


def _records(data: bytes, at: int, count: int) -> Iterator[tuple[int, int, int]]:
    for number in range(count):
        high, low = struct.unpack_from(">2Q", data, at + 16 * number)
        if not high >> 63:  # what is only reserved reads as zeros
            yield high >> 9 & (1 << 54) - 1, (high & 0x1FF) << 43 | low >> 21, low & (1 << 21) - 1
