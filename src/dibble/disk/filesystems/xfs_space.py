"""The space of an XFS file system: what is free in each allocation group, and the trees that say so."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.disk.filesystems.xfs_format import (
    CHUNK,
    FREE_INODE_TREE,
    INODE_TREE_COUNTS,
    NULL,
    SHORT_HEADER,
    sealed,
    split_evenly,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.disk.filesystems.xfs_format import Device, Geometry

_SHORT_CRC_AT = 52
_AGF_CRC_AT, _AGI_CRC_AT = 216, 312
_SPARE = 64
"""Blocks that each group keeps while others have room, for trees that grow when the system is used."""


class Full(Exception):
    """Nothing is free any more."""


@dataclass(slots=True)
class Group:
    """One allocation group. `free` holds [first block, count], ascending; `budget` is what may be taken for now."""

    number: int
    agf: bytearray
    agi: bytearray
    free: list[list[int]]
    budget: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """(first inode's number in the group, mask of its free inodes), ascending."""
    tree_blocks: int = 0

    @property
    def free_blocks(self) -> int:
        return sum(count for _, count in self.free)


class Space:
    """Hands out blocks, from the front of each group on, and writes the groups' headers and trees in the end."""

    def __init__(self, device: Device, geometry: Geometry) -> None:
        self._device = device
        self._geometry = geometry
        self.groups = [self._read(number) for number in range(geometry.groups)]
        self._current = 0
        self.taken = 0

    def _read(self, number: int) -> Group:
        geometry = self._geometry
        start = geometry.offset(geometry.fsblock(number, 0))
        size = geometry.sector_size
        agf = bytearray(self._device.read(start + size, size))
        agi = bytearray(self._device.read(start + 2 * size, size))
        root, level = struct.unpack_from(">I", agf, 16)[0], struct.unpack_from(">I", agf, 28)[0]
        assert level == 1, "a new file system has few free extents"
        block = self._device.read(geometry.offset(geometry.fsblock(number, root)), geometry.block_size)
        count = struct.unpack_from(">H", block, 6)[0]
        free = [list(struct.unpack_from(">2I", block, SHORT_HEADER + 8 * index)) for index in range(count)]
        return Group(number, agf, agi, free)

    @property
    def free_blocks(self) -> int:
        return sum(group.free_blocks for group in self.groups)

    def spread(self, needed: int) -> None:
        """Fill all groups alike: give each its share of the `needed` blocks, and keep some of each for later."""
        free = max(1, self.free_blocks)
        for group in self.groups:
            group.budget = min(group.free_blocks - _SPARE, group.free_blocks * needed // free + _SPARE)

    def take(self, count: int) -> list[tuple[int, int]]:
        """`count` blocks as few (fsblock, count). Raises Full."""
        pieces = []
        self.taken += count
        while count:
            group = self._group(1)
            first = next(piece for piece in group.free if piece[1])
            length = min(count, first[1], max(1, group.budget))
            pieces.append((self._geometry.fsblock(group.number, first[0]), length))
            first[0] += length
            first[1] -= length
            group.budget -= length
            count -= length
            if not first[1]:
                group.free.remove(first)
        return pieces

    def take_whole(self, count: int, align: int = 1) -> int:
        """The fsblock of `count` blocks in a row, on a multiple of `align` within its group. Raises Full."""
        self.taken += count
        for limited in (True, False):
            for group in self.groups[self._current :] + self.groups[: self._current]:
                if limited and group.budget < count:
                    continue
                for index, (start, length) in enumerate(group.free):
                    begin = -(-start // align) * align
                    if begin + count <= start + length:
                        left = [[start, begin - start], [begin + count, start + length - begin - count]]
                        group.free[index : index + 1] = [piece for piece in left if piece[1]]
                        group.budget -= count
                        return self._geometry.fsblock(group.number, begin)
        raise Full

    def _group(self, count: int) -> Group:
        while self._current < len(self.groups):
            group = self.groups[self._current]
            if group.budget >= count and group.free:
                return group
            self._current += 1
        self._current = 0
        for group in self.groups:  # nothing is left but what was kept back
            group.budget = group.free_blocks
        if not self.free_blocks:
            raise Full
        return self._group(count)

    def finish(self) -> None:
        """Write what says which blocks and inodes are taken."""
        for group in self.groups:
            self._write_inode_trees(group)
        for group in self.groups:
            self._write_free_space(group)

    def _take_in(self, group: Group, count: int) -> list[int]:
        """Blocks of one group, from the ends of its free space so that no more pieces come of it."""
        blocks = []
        for _ in range(count):
            piece = max(group.free, key=lambda piece: piece[1], default=None)
            if piece is None:
                raise Full
            piece[1] -= 1
            blocks.append(piece[0] + piece[1])
            if not piece[1]:
                group.free.remove(piece)
        return blocks

    def _write_inode_trees(self, group: Group) -> None:
        geometry, agi = self._geometry, group.agi
        free = 0
        records, with_free = [], []
        for first, mask in group.chunks:
            unused = mask.bit_count()
            free += unused
            middle = struct.pack(">HBB", 0, CHUNK, unused) if geometry.sparse_inodes else struct.pack(">I", unused)
            record = struct.pack(">I", first) + middle + struct.pack(">Q", mask)
            records.append(record)
            if unused:
                with_free.append(record)
        root, level, blocks = self._write_tree(group, b"IAB3", records, 4, struct.unpack_from(">I", agi, 20)[0])
        struct.pack_into(">4I", agi, 16, CHUNK * len(records), root, level, free)
        if group.chunks:
            struct.pack_into(">I", agi, 32, group.chunks[-1][0])
        free_tree_blocks = 0
        if geometry.ro_compat & FREE_INODE_TREE:
            root, level, free_tree_blocks = self._write_tree(
                group, b"FIB3", with_free, 4, struct.unpack_from(">I", agi, 328)[0]
            )
            struct.pack_into(">2I", agi, 328, root, level)
        if geometry.ro_compat & INODE_TREE_COUNTS:
            struct.pack_into(">2I", agi, 336, blocks, free_tree_blocks)
        self.taken += blocks - 1 + max(0, free_tree_blocks - 1)
        start = geometry.offset(geometry.fsblock(group.number, 0))
        self._device.write(start + 2 * geometry.sector_size, sealed(agi, _AGI_CRC_AT))

    def _write_free_space(self, group: Group) -> None:
        geometry, agf = self._geometry, group.agf
        most = (geometry.block_size - SHORT_HEADER) // 8
        # The blocks of the two trees come out of what they describe: as many pieces remain, or fewer.
        extra = 2 * (_tree_blocks(len(group.free), most, (geometry.block_size - SHORT_HEADER) // 12) - 1)
        spare = self._take_in(group, extra)
        pieces = sorted((first, count) for first, count in group.free)
        by_size = sorted(pieces, key=lambda piece: (piece[1], piece[0]))
        roots = struct.unpack_from(">2I", agf, 16)
        used = 0
        for number, (magic, ordered) in enumerate(((b"AB3B", pieces), (b"AB3C", by_size))):
            records = [struct.pack(">2I", *piece) for piece in ordered]
            root, level, blocks = self._write_tree(group, magic, records, 8, roots[number], spare)
            used += blocks - 1
            struct.pack_into(">I", agf, 16 + 4 * number, root)
            struct.pack_into(">I", agf, 28 + 4 * number, level)
        for block in spare:  # fewer pieces were left than thought
            group.free.append([block, 1])
        assert not spare, "the trees took as many blocks as were kept for them"
        longest = max((count for _, count in pieces), default=0)
        struct.pack_into(">3I", agf, 52, sum(count for _, count in pieces), longest, used)
        start = geometry.offset(geometry.fsblock(group.number, 0))
        self._device.write(start + geometry.sector_size, sealed(agf, _AGF_CRC_AT))

    def _write_tree(  # noqa: PLR0917 - a tree's kind, content and place
        self,
        group: Group,
        magic: bytes,
        records: Sequence[bytes],
        key_size: int,
        root: int,
        spare: list[int] | None = None,
    ) -> tuple[int, int, int]:
        """Write a tree whose root stays where it is; return root, levels and the number of its blocks.

        Further blocks are taken from `spare`, or from the group. A record's key is its beginning.
        """
        geometry = self._geometry
        room = geometry.block_size - SHORT_HEADER
        width = len(records[0]) if records else 16
        most, level, total = room // width, 0, 0
        items = list(records)
        pointers: list[int] = []
        while True:
            counts = split_evenly(len(items), most)
            total += len(counts)
            if len(counts) == 1:
                blocks = [root]
            elif spare is None:
                blocks = self._take_in(group, len(counts))
            else:
                blocks = [spare.pop() for _ in counts]
            begin = 0
            firsts = []
            for index, count in enumerate(counts):
                part = items[begin : begin + count]
                left = blocks[index - 1] if index else NULL
                right = blocks[index + 1] if index + 1 < len(blocks) else NULL
                fsblock = geometry.fsblock(group.number, blocks[index])
                block = bytearray(geometry.block_size)
                struct.pack_into(">4sHHII", block, 0, magic, level, count, left, right)
                struct.pack_into(">QQ16sI", block, 16, geometry.daddr(fsblock), 0, geometry.uuid, group.number)
                body = b"".join(part)
                block[SHORT_HEADER : SHORT_HEADER + len(body)] = body
                if level:
                    at = SHORT_HEADER + most * key_size
                    struct.pack_into(f">{count}I", block, at, *pointers[begin : begin + count])
                self._device.seal(geometry.offset(fsblock), block, _SHORT_CRC_AT)
                if part:
                    firsts.append(part[0][:key_size])
                begin += count
            level += 1
            if len(counts) == 1:
                return root, level, total
            items, pointers, most = firsts, blocks, room // (key_size + 4)


def _tree_blocks(records: int, leaf: int, node: int) -> int:
    """Blocks of a tree with so many records."""
    count = total = max(1, -(-records // leaf))
    while count > 1:
        count = -(-count // node)
        total += count
    return total
