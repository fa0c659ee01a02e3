"""Btrfs as trees: the superblock, where logical addresses are on the device, and items in the order of their keys.

Sources: the kernel's include/uapi/linux/btrfs_tree.h and "On-disk Format" of the documentation of btrfs. All is
little-endian; each block's checksum is compared.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import struct
from typing import TYPE_CHECKING

from dibble.disk.crc32c import crc32c
from dibble.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD = "the btrfs file system is damaged"
_HINT = "run btrfs check on it"
_SUPER_AT, _SUPER_SIZE = 64 << 10, 4096
_ARRAY_AT, _ARRAY_ROOM = 811, 2048
_CSUM = 32  # room for a checksum
_HEADER, _ITEM, _POINTER = 101, 25, 33
_CHUNK_ITEM = 228
_DEEPEST = 8  # levels: BTRFS_MAX_LEVEL
_STRIPED = 8 | 64 | 128 | 256  # RAID0, RAID10, RAID5, RAID6
# MIXED_BACKREF … SIMPLE_QUOTA (btrfs_tree.h): all that tell nothing but how files are found; the others are refused
_READ_INCOMPAT = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x10000

Key = tuple[int, int, int]
"""Object, type of item, offset."""


class Volume:
    """The file system at `base` of an open image, `size` bytes long."""

    def __init__(self, descriptor: int, base: int, size: int) -> None:
        self._descriptor = descriptor
        self._base = base
        self._end = size
        start = self._physical(_SUPER_AT, _SUPER_SIZE)
        if start[64:72] != b"_BHRfS_M":
            raise ReadError("this is no btrfs file system")
        (self._csum_type,) = struct.unpack_from("<H", start, 196)
        self._check(start, "superblock")
        self.root, chunks, log = struct.unpack_from("<3Q", start, 80)
        (devices,) = struct.unpack_from("<Q", start, 136)
        self.sector_size, self._node_size = struct.unpack_from("<2I", start, 144)
        (array_size,) = struct.unpack_from("<I", start, 160)
        (incompatible,) = struct.unpack_from("<Q", start, 188)
        if incompatible & ~_READ_INCOMPAT:
            raise ReadError(
                f"the btrfs file system has features that are not read: {incompatible & ~_READ_INCOMPAT:#x}"
            )
        if devices != 1:
            raise ReadError(f"the btrfs file system is on {devices} devices, and the image is one")
        if log:
            raise ReadError(
                "the btrfs file system was not unmounted: its log holds changes that are not in their places",
                hint="mount it once and unmount it, which plays the log",
            )
        if not 512 <= self.sector_size <= 65536 or not 4096 <= self._node_size <= 65536 or array_size > _ARRAY_ROOM:
            raise ReadError(f"{BAD}: its superblock contradicts itself", hint=_HINT)
        self._starts: list[int] = []
        self._chunks: list[tuple[int, int, int]] = []
        self._bootstrap(start[_ARRAY_AT : _ARRAY_AT + array_size])
        found = [(key[2], data) for key, data in self.items(chunks) if key[1] == _CHUNK_ITEM]
        for logical, data in found:
            self._add_chunk(logical, data)

    def _bootstrap(self, array: bytes) -> None:
        """The chunks that the tree of chunks itself lies in, which the superblock tells."""
        at = 0
        while at < len(array):
            _, kind, logical = struct.unpack_from("<QBQ", array, at)
            (stripes,) = struct.unpack_from("<H", array, at + 17 + 44)
            end = at + 17 + 48 + 32 * stripes
            if kind != _CHUNK_ITEM or not stripes or end > len(array):
                raise ReadError(f"{BAD}: its superblock contradicts itself", hint=_HINT)
            self._add_chunk(logical, array[at + 17 : end])
            at = end

    def _add_chunk(self, logical: int, data: bytes) -> None:
        length, _, _, kind = struct.unpack_from("<4Q", data)
        if kind & _STRIPED:
            raise ReadError("the btrfs file system is spread over stripes, which is not read")
        (physical,) = struct.unpack_from("<Q", data, 56)
        place = bisect.bisect_left(self._starts, logical)
        if place < len(self._starts) and self._starts[place] == logical:
            return
        self._starts.insert(place, logical)
        self._chunks.insert(place, (logical, length, physical))

    def bytes_at(self, logical: int, size: int) -> bytes:
        """Bytes at a logical address, which lie in one chunk."""
        place = bisect.bisect_right(self._starts, logical) - 1
        begin, length, physical = self._chunks[place] if place >= 0 else (0, 0, 0)
        if logical + size > begin + length:
            raise ReadError(f"{BAD}: nothing is at its address {logical}", hint=_HINT)
        return self._physical(physical + logical - begin, size)

    def items(self, root: int) -> Iterator[tuple[Key, bytes]]:
        """All items of a tree in the order of their keys, with their data."""
        yield from self._below(root, -1, set())

    def _below(self, logical: int, level: int, seen: set[int]) -> Iterator[tuple[Key, bytes]]:
        if logical in seen:
            raise ReadError(f"{BAD}: a tree has the block {logical} twice", hint=_HINT)
        seen.add(logical)
        data = self.bytes_at(logical, self._node_size)
        self._check(data, f"block {logical}")
        own, count, own_level = struct.unpack_from("<48xQ40xIB", data)
        if own != logical or own_level >= _DEEPEST or level not in (-1, own_level):
            raise ReadError(f"{BAD}: its block {logical} is not what leads to it", hint=_HINT)
        if _HEADER + count * (_POINTER if own_level else _ITEM) > len(data):
            raise ReadError(f"{BAD}: its block {logical} has {count} items", hint=_HINT)
        if own_level:
            for number in range(count):
                (child,) = struct.unpack_from("<Q", data, _HEADER + _POINTER * number + 17)
                yield from self._below(child, own_level - 1, seen)
            return
        for number in range(count):
            where, kind, offset, at, size = struct.unpack_from("<QBQII", data, _HEADER + _ITEM * number)
            if _HEADER + at + size > len(data):
                raise ReadError(f"{BAD}: an item of its block {logical} is cut off", hint=_HINT)
            yield (where, kind, offset), data[_HEADER + at : _HEADER + at + size]

    def _physical(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._base + offset) if offset + size <= self._end else b""
        if len(data) != size:
            raise ReadError("the btrfs file system is cut off")
        return data

    def _check(self, data: bytes, what: str) -> None:
        content = data[_CSUM:]
        match self._csum_type:
            case 0:
                digest = struct.pack("<I", crc32c(content))
            case 2:
                digest = hashlib.sha256(content).digest()
            case 3:
                digest = hashlib.blake2b(content, digest_size=32).digest()
            case 1:
                return  # xxHash, for which there is no program here: structure is checked all the same
            case _:
                raise ReadError(f"the btrfs file system has checksums of an unknown kind, {self._csum_type}")
        if data[: len(digest)] != digest:
            raise ReadError(f"{BAD}: the {what} has not the right checksum", hint=_HINT)
