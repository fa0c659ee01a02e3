"""Btrfs on disk: keys, items, blocks of trees (kernel include/uapi/linux/btrfs_tree.h). Everything is little-endian."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from dibble.disk.crc32c import checksums, hashed

SUPER_AT = 64 << 10
SUPER_COPIES = (SUPER_AT, 64 << 20, 256 << 30)
SUPER_SIZE = 4096
HEADER, ITEM, POINTER = 101, 25, 33
"""Bytes of a block's header, of an item in a leaf besides its data, and of a child in a node."""
CSUM_SIZE = 32  # room for checksums, in blocks

ROOT_TREE, EXTENT_TREE, CHUNK_TREE, DEV_TREE, FS_TREE, ROOT_DIR, CSUM_TREE = 1, 2, 3, 4, 5, 6, 7
UUID_TREE, FREE_SPACE_TREE, BLOCK_GROUP_TREE = 9, 10, 11
DATA_RELOC_TREE, CSUM_OBJECT = (1 << 64) - 9, (1 << 64) - 10
FIRST_FREE = 256
MAXIMUM = (1 << 64) - 1

INODE_ITEM, INODE_REF, INODE_EXTREF, XATTR_ITEM = 1, 12, 13, 24
DIR_ITEM, DIR_INDEX, EXTENT_DATA, EXTENT_CSUM = 84, 96, 108, 128
ROOT_ITEM, ROOT_BACKREF, ROOT_REF, EXTENT_ITEM, METADATA_ITEM = 132, 144, 156, 168, 169
TREE_BLOCK_REF, EXTENT_DATA_REF, BLOCK_GROUP_ITEM = 176, 178, 192
FREE_SPACE_INFO, FREE_SPACE_EXTENT, DEV_EXTENT, DEV_ITEM, CHUNK_ITEM, UUID_SUBVOLUME = 198, 199, 204, 216, 228, 251

DATA, SYSTEM, METADATA, DUP = 1, 2, 4, 32
DEFAULT_SUBVOLUME, COMPRESS_ZSTD, SKINNY, EXTENDED_REFS, NO_HOLES = 2, 16, 0x100, 0x40, 0x200
_KNOWN_INCOMPAT = 1 | DEFAULT_SUBVOLUME | 8 | COMPRESS_ZSTD | 32 | EXTENDED_REFS | SKINNY | NO_HOLES | 0x400
HAS_FREE_SPACE_TREE, HAS_BLOCK_GROUP_TREE = 1, 8
_KNOWN_RO_COMPAT = HAS_FREE_SPACE_TREE | 2 | HAS_BLOCK_GROUP_TREE
_FEATURES = {4: "mixed-bg", 0x80: "raid56", 0x800: "raid1c34", 0x1000: "zoned", 0x4000: "raid-stripe-tree"}
_CRC32C, _SHA256, _BLAKE2 = 0, 2, 3
_CSUM_SIZES = {_CRC32C: 4, _SHA256: 32, _BLAKE2: 32}
_WRITTEN = 1 | 1 << 56  # header flags: written, and back references as of 2.6.31
_NAME_SEED = 0xFFFFFFFE

Key = tuple[int, int, int]
"""Object, type of item, offset: what items are sorted by."""
Item = tuple[Key, bytes]


class Unsupported(Exception):
    """A feature that was asked for by options, and that this writer does not write."""


class Full(Exception):
    """Nothing is free any more."""


@dataclass(frozen=True, slots=True)
class Format:
    """What the superblock of an empty file system says of how this one is to be."""

    superblock: bytes
    uuid: bytes
    """The one in every block."""
    device_uuid: bytes
    chunk_uuid: bytes
    total: int
    sector: int
    node: int
    generation: int
    incompat: int
    ro_compat: int
    csum_type: int

    @property
    def csum_size(self) -> int:
        return _CSUM_SIZES[self.csum_type]

    @property
    def room(self) -> int:
        """Bytes of a block behind its header."""
        return self.node - HEADER


def read_format(superblock: bytes, chunk_uuid: bytes) -> Format:
    """Read a superblock. Raises Unsupported for features that are not written here."""
    incompat = struct.unpack_from("<Q", superblock, 188)[0]
    ro_compat = struct.unpack_from("<Q", superblock, 180)[0]
    for bit, name in _FEATURES.items():
        if incompat & bit:
            raise Unsupported(name)
    for missing, name in ((SKINNY, "^skinny-metadata"), (EXTENDED_REFS, "^extref")):
        if not incompat & missing:
            raise Unsupported(name)
    if incompat & ~_KNOWN_INCOMPAT or ro_compat & ~_KNOWN_RO_COMPAT:
        unknown = (incompat & ~_KNOWN_INCOMPAT, ro_compat & ~_KNOWN_RO_COMPAT)
        raise Unsupported(f"features {unknown[0]:#x} and {unknown[1]:#x}")
    csum_type = struct.unpack_from("<H", superblock, 196)[0]
    if csum_type not in _CSUM_SIZES:
        raise Unsupported("--csum xxhash")
    sector, node = struct.unpack_from("<2I", superblock, 144)
    return Format(
        superblock,
        superblock[571:587] if incompat & 0x400 else superblock[32:48],
        superblock[201 + 66 : 201 + 82],
        chunk_uuid,
        struct.unpack_from("<Q", superblock, 112)[0],
        sector,
        node,
        struct.unpack_from("<Q", superblock, 72)[0],
        incompat,
        ro_compat,
        csum_type,
    )


def digests(form: Format, data: bytes | bytearray, size: int, skip: int = 0) -> bytes:
    """The checksums of blocks of `size` bytes, one after another, each of `form.csum_size` bytes."""
    if form.csum_type == _CRC32C:
        values = checksums(data, size, skip)
        return struct.pack(f"<{len(values)}I", *values)
    view = memoryview(data)
    blocks = (view[at + skip : at + size] for at in range(0, len(data), size))
    if form.csum_type == _SHA256:
        return b"".join(hashlib.sha256(block).digest() for block in blocks)
    return b"".join(hashlib.blake2b(block, digest_size=32).digest() for block in blocks)


def header(form: Format, logical: int, owner: int, count: int, level: int) -> bytes:
    return struct.pack(
        "<32x16sQQ16sQQIB", form.uuid, logical, _WRITTEN, form.chunk_uuid, form.generation, owner, count, level
    )


def name_hash(name: bytes) -> int:
    return hashed(name, _NAME_SEED)


def reference_hash(parent: int, name: bytes) -> int:
    """The offset of an extended reference."""
    return hashed(name, parent & 0xFFFFFFFF)


def directory_entry(target: Key, generation: int, name: bytes, kind: int, data: bytes = b"") -> bytes:
    return struct.pack("<QBQQHHB", *target, generation, len(data), len(name), kind) + name + data


def inode_item(  # noqa: PLR0917 - struct btrfs_inode_item
    generation: int,
    size: int,
    stored: int,
    links: int,
    uid: int,
    gid: int,
    mode: int,
    rdev: int,
    times: tuple[bytes, bytes],
) -> bytes:
    """`times` are the one of access, change and modification, and that of creation, 12 bytes each (`moment`)."""
    return (
        struct.pack("<5Q4I3Q32x", generation, generation, size, stored, 0, links, uid, gid, mode, rdev, 0, 0)
        + times[0] * 3
        + times[1]
    )


def moment(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return struct.pack("<qI", seconds, rest)
