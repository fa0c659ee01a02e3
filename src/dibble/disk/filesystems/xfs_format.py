"""XFS version 5 on disk: geometry, and blocks with their checksums ("XFS Algorithms & Data Structures", 3rd edition).

Everything is big-endian but checksums. Three kinds of numbers name a block: in its allocation group (AG), in the file
system (AG number and the former side by side, here `fsblock`), and in units of 512 bytes from the start (`daddr`).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from dibble.disk.crc32c import checksums, crc32c
from dibble.store.sparse import write_at

BIGTIME, NREXT64 = 8, 32  # sb_features_incompat
_SPARSE_INODES = 2
_KNOWN_INCOMPAT = 1 | 2 | 4 | BIGTIME | NREXT64 | 64  # ftype, sparse inodes, meta_uuid, …, exchange-range
FREE_INODE_TREE, _REFLINK, INODE_TREE_COUNTS = 1, 4, 8  # sb_features_ro_compat
_KNOWN_RO_COMPAT = FREE_INODE_TREE | _REFLINK | INODE_TREE_COUNTS
_NAMES = {"incompat": {128: "parent", 256: "metadir", 512: "zoned"}, "ro_compat": {2: "rmapbt"}}
_CASE_INSENSITIVE = 0x4000  # sb_versionnum, XFS_SB_VERSION_BORGBIT
NULL = 0xFFFFFFFF
SHORT_HEADER, LONG_HEADER = 56, 72
INODE_CORE = 176
CHUNK = 64
"""Inodes that are allocated at once."""
_SUPERBLOCK_CRC_AT = 224


class Unsupported(Exception):
    """A feature that was asked for by options, and that this writer does not write."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a superblock says. Sizes in bytes, logarithms of two where the name ends in `log`."""

    block_size: int
    block_log: int
    group_blocks: int
    group_log: int
    groups: int
    sector_size: int
    inode_size: int
    inodes_log: int
    directory_log: int
    alignment: int
    root: int
    uuid: bytes
    incompat: int
    ro_compat: int

    @property
    def directory_size(self) -> int:
        return self.block_size << self.directory_log

    @property
    def literal(self) -> int:
        """Bytes of an inode behind its core."""
        return self.inode_size - INODE_CORE

    def fsblock(self, group: int, block: int) -> int:
        return group << self.group_log | block

    def offset(self, fsblock: int) -> int:
        """Bytes from the start of the file system."""
        group, block = fsblock >> self.group_log, fsblock & ((1 << self.group_log) - 1)
        return (group * self.group_blocks + block) * self.block_size

    def daddr(self, fsblock: int) -> int:
        return self.offset(fsblock) >> 9

    def inode_offset(self, number: int) -> int:
        within = number & ((1 << self.inodes_log) - 1)
        return self.offset(number >> self.inodes_log) + within * self.inode_size

    @property
    def sparse_inodes(self) -> bool:
        return bool(self.incompat & _SPARSE_INODES)


def geometry(superblock: bytes) -> Geometry:
    """Read a superblock. Raises Unsupported for features that are not written here."""
    version = struct.unpack_from(">H", superblock, 100)[0]
    ro_compat, incompat = struct.unpack_from(">2I", superblock, 212)
    if version & 0xF != 5:
        raise Unsupported("crc=0")
    if version & _CASE_INSENSITIVE:
        raise Unsupported("version=ci")
    for kind, present, known in (
        ("incompat", incompat, _KNOWN_INCOMPAT),
        ("ro_compat", ro_compat, _KNOWN_RO_COMPAT),
    ):
        for bit, name in _NAMES[kind].items():
            if present & bit:
                raise Unsupported(name)
        if present & ~known:
            raise Unsupported(f"{kind} feature {present & ~known:#x}")
    block_size = struct.unpack_from(">I", superblock, 4)[0]
    group_blocks, groups = struct.unpack_from(">2I", superblock, 84)
    if struct.unpack_from(">Q", superblock, 16)[0]:
        raise Unsupported("rtdev")
    sector_size, inode_size = struct.unpack_from(">2H", superblock, 102)
    block_log, _, _, inodes_log, group_log = struct.unpack_from(">5B", superblock, 120)
    # With meta_uuid blocks carry another than the one that is shown.
    uuid = superblock[248:264] if incompat & 4 else superblock[32:48]
    return Geometry(
        block_size,
        block_log,
        group_blocks,
        group_log,
        groups,
        sector_size,
        inode_size,
        inodes_log,
        superblock[192],
        struct.unpack_from(">I", superblock, 180)[0],
        struct.unpack_from(">Q", superblock, 56)[0],
        uuid,
        incompat,
        ro_compat,
    )


def sealed(data: bytearray, crc_at: int) -> bytes:
    """One block with its checksum, whose place counts as zero."""
    data[crc_at : crc_at + 4] = bytes(4)
    struct.pack_into("<I", data, crc_at, crc32c(bytes(data)))
    return bytes(data)


_BATCH = 4 << 20  # bytes of blocks that wait for their checksums


@dataclass(slots=True)
class Device:
    """The file system inside an image file: `base` is its first byte there."""

    descriptor: int
    base: int
    _waiting: dict[tuple[int, int], tuple[list[int], bytearray]] = field(default_factory=dict)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, self.base + offset)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        write_at(self.descriptor, data, self.base + offset)

    def seal(self, offset: int, block: bytes | bytearray, crc_at: int) -> None:
        """Write a block later, with its checksum, of which `crc_at` is the place, and zero now."""
        offsets, blocks = self._waiting.setdefault((len(block), crc_at), ([], bytearray()))
        offsets.append(offset)
        blocks += block
        if len(blocks) >= _BATCH:
            self._write_batch(len(block), crc_at)

    def flush(self) -> None:
        for size, crc_at in list(self._waiting):
            self._write_batch(size, crc_at)

    def _write_batch(self, size: int, crc_at: int) -> None:
        offsets, blocks = self._waiting.pop((size, crc_at))
        for number, value in enumerate(checksums(blocks, size)):
            struct.pack_into("<I", blocks, number * size + crc_at, value)
        begin = 0
        for number in range(1, len(offsets) + 1):  # neighbours are written together
            if number == len(offsets) or offsets[number] != offsets[number - 1] + size:
                self.write(offsets[begin], memoryview(blocks)[begin * size : number * size])
                begin = number


def superblock_with(superblock: bytes, inodes: int, free_inodes: int, free_blocks: int) -> bytes:
    """The superblock with the counters that filling changes."""
    data = bytearray(superblock)
    struct.pack_into(">3Q", data, 128, inodes, free_inodes, free_blocks)
    return sealed(data, _SUPERBLOCK_CRC_AT)


def split_evenly(count: int, most: int) -> list[int]:
    """How many of `count` records each of as few blocks as possible gets; at least half of `most` when there are
    several, as trees ask for."""
    blocks = max(1, -(-count // most))
    share, rest = divmod(count, blocks)
    return [share + (number < rest) for number in range(blocks)]
