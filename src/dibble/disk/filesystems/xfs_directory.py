"""XFS directories: in the inode, in one block, or in data blocks with a hash tree beside them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dibble.disk.filesystems.xfs_forks import (
    NODE_CRC_AT,
    NODE_HEADER,
    Child,
    Extent,
    block_header,
    name_hash,
    node_counts,
    write_nodes,
)
from dibble.disk.filesystems.xfs_format import split_evenly
from dibble.tree.inodes import FILE_TYPES

if TYPE_CHECKING:
    from dibble.disk.filesystems.xfs_format import Device, Geometry
    from dibble.disk.filesystems.xfs_space import Space
    from dibble.tree.inodes import Inode

_HEADER = 64  # of data, leaf and free blocks alike
_DATA_CRC_AT = 4
_LEAF_SPACE, _FREE_SPACE = 32 << 30, 64 << 30  # bytes, where hash trees and lists of free space begin in a directory
_LEAF1, _LEAFN = 0x3DF1, 0x3DFF
_UNUSED = 0xFFFF
_MAXIMUM32 = (1 << 32) - 1

Name = tuple[bytes, int, int]
"""A name, the inode's number and its file type."""


def _entry_size(name: bytes) -> int:
    return (8 + 1 + len(name) + 1 + 2 + 7) & ~7


def short_form(folder: Inode, room: int) -> bytes | None:
    """A directory that fits into its inode; None when it does not."""
    size = 6 + sum(8 + len(name) for name, _ in folder.entries)
    if size > room or len(folder.entries) > 255:
        return None
    parent = (folder.parent or folder).number
    large = sum(inode.number > _MAXIMUM32 for _, inode in folder.entries) + (parent > _MAXIMUM32)
    width = 8 if large else 4
    data = bytearray(struct.pack(">BB", len(folder.entries), large) + parent.to_bytes(width, "big"))
    offset = _HEADER + _entry_size(b".") + _entry_size(b"..")
    for name, inode in folder.entries:
        data += struct.pack(">BH", len(name), offset) + name + bytes([FILE_TYPES[inode.kind]])
        data += inode.number.to_bytes(width, "big")
        offset += _entry_size(name)
    return bytes(data) if len(data) <= room else None


class DirectoryWriter:
    """Writes directories that do not fit into their inodes."""

    def __init__(self, device: Device, geometry: Geometry, space: Space) -> None:
        self._device = device
        self._geometry = geometry
        self._space = space
        self._size = geometry.directory_size
        self._step = 1 << geometry.directory_log

    def write(self, folder: Inode) -> tuple[int, list[Extent]]:
        """The directory's size in bytes, and its extents."""
        parent = (folder.parent or folder).number
        names: list[Name] = [(b".", folder.number, 2), (b"..", parent, 2)]
        names += [(name, inode.number, FILE_TYPES[inode.kind]) for name, inode in folder.entries]
        if _HEADER + sum(_entry_size(name) for name, _, _ in names) + 8 * len(names) + 8 <= self._size:
            return self._size, [self._block(folder.number, names)]
        return self._blocks(folder.number, names)

    def _take(self) -> int:
        return self._space.take_whole(self._step)

    def _header(self, magic: bytes, fsblock: int, owner: int) -> bytes:
        geometry = self._geometry
        return struct.pack(">4sIQQ16sQ", magic, 0, geometry.daddr(fsblock), 0, geometry.uuid, owner)

    def _data(  # noqa: PLR0917 - one block
        self, magic: bytes, fsblock: int, owner: int, names: list[Name], number: int, end: int
    ) -> tuple[bytearray, list[tuple[int, int]], int]:
        """A block with entries up to the offset `end`, (hash, address) of each, and the bytes that stay free."""
        block = bytearray(self._size)
        block[:48] = self._header(magic, fsblock, owner)
        offset = _HEADER
        hashes = []
        for name, inode, kind in names:
            size = _entry_size(name)
            entry = struct.pack(">QB", inode, len(name)) + name + bytes([kind])
            block[offset : offset + len(entry)] = entry
            struct.pack_into(">H", block, offset + size - 2, offset)
            hashes.append((name_hash(name), (number * self._size + offset) >> 3))
            offset += size
        free = end - offset
        if free:
            struct.pack_into(">2H", block, offset, _UNUSED, free)
            struct.pack_into(">H", block, end - 2, offset)
            struct.pack_into(">2H", block, 48, offset, free)
        return block, hashes, free

    def _block(self, owner: int, names: list[Name]) -> Extent:
        fsblock = self._take()
        end = self._size - 8 - 8 * len(names)
        block, hashes, _ = self._data(b"XDB3", fsblock, owner, names, 0, end)
        for index, pair in enumerate(sorted(hashes)):
            struct.pack_into(">2I", block, end + 8 * index, *pair)
        struct.pack_into(">2I", block, self._size - 8, len(names), 0)
        self._device.seal(self._geometry.offset(fsblock), block, _DATA_CRC_AT)
        return Extent(0, fsblock, self._step)

    def _blocks(self, owner: int, names: list[Name]) -> tuple[int, list[Extent]]:
        parts: list[list[Name]] = [[]]
        filled = _HEADER
        for name in names:
            if filled + _entry_size(name[0]) > self._size:
                parts.append([])
                filled = _HEADER
            parts[-1].append(name)
            filled += _entry_size(name[0])
        extents, hashes, free = [], [], []
        for number, part in enumerate(parts):
            fsblock = self._take()
            block, found, left = self._data(b"XDD3", fsblock, owner, part, number, self._size)
            self._device.seal(self._geometry.offset(fsblock), block, _DATA_CRC_AT)
            extents.append(Extent(number * self._step, fsblock, self._step))
            hashes += found
            free.append(left)
        hashes.sort()
        if _HEADER + 8 * len(hashes) + 2 * len(free) + 4 <= self._size:
            extents.append(self._leaf(owner, hashes, free))
        else:
            extents += self._tree(owner, hashes)
            extents += self._free_lists(owner, free)
        return len(parts) * self._size, extents

    def _leaf(self, owner: int, hashes: list[tuple[int, int]], free: list[int]) -> Extent:
        fsblock = self._take()
        block = self._leaf_block(_LEAF1, fsblock, owner, hashes)
        struct.pack_into(f">{len(free)}H", block, self._size - 4 - 2 * len(free), *free)
        struct.pack_into(">I", block, self._size - 4, len(free))
        self._device.seal(self._geometry.offset(fsblock), block, NODE_CRC_AT)
        return Extent(_LEAF_SPACE // self._geometry.block_size, fsblock, self._step)

    def _leaf_block(  # noqa: PLR0917 - one block
        self, magic: int, fsblock: int, owner: int, hashes: list[tuple[int, int]], forward: int = 0, back: int = 0
    ) -> bytearray:
        block = bytearray(self._size)
        block[:56] = block_header(magic, fsblock, owner, self._geometry, forward=forward, back=back)
        struct.pack_into(">2H", block, 56, len(hashes), 0)
        struct.pack_into(f">{2 * len(hashes)}I", block, _HEADER, *(number for pair in hashes for number in pair))
        return block

    def _tree(self, owner: int, hashes: list[tuple[int, int]]) -> list[Extent]:
        """Leaves with all hashes, and the nodes above them; the root comes first in its space."""
        first = _LEAF_SPACE // self._geometry.block_size
        counts = split_evenly(len(hashes), (self._size - _HEADER) // 8)
        levels = node_counts(len(counts), (self._size - NODE_HEADER) // 8)
        nodes = sum(len(level) for level in levels)
        places = [(first + number * self._step, self._take()) for number in range(nodes + len(counts))]
        leaves = places[nodes:] if nodes else places
        begin, children = 0, []
        for index, count in enumerate(counts):
            logical, fsblock = leaves[index]
            part = hashes[begin : begin + count]
            forward = leaves[index + 1][0] if index + 1 < len(leaves) else 0
            back = leaves[index - 1][0] if index else 0
            block = self._leaf_block(_LEAFN, fsblock, owner, part, forward, back)
            self._device.seal(self._geometry.offset(fsblock), block, NODE_CRC_AT)
            children.append(Child(part[-1][0], logical))
            begin += count
        if nodes:
            write_nodes(children, levels, places[0], places[1:nodes], owner, self._device, self._geometry, self._size)
        return [Extent(logical, fsblock, self._step) for logical, fsblock in places]

    def _free_lists(self, owner: int, free: list[int]) -> list[Extent]:
        first = _FREE_SPACE // self._geometry.block_size
        most = (self._size - _HEADER) // 2
        extents = []
        for number, begin in enumerate(range(0, len(free), most)):
            part = free[begin : begin + most]
            fsblock = self._take()
            block = bytearray(self._size)
            block[:48] = self._header(b"XDF3", fsblock, owner)
            struct.pack_into(">3I", block, 48, begin, len(part), len(part))
            struct.pack_into(f">{len(part)}H", block, _HEADER, *part)
            self._device.seal(self._geometry.offset(fsblock), block, _DATA_CRC_AT)
            extents.append(Extent(first + number * self._step, fsblock, self._step))
        return extents
