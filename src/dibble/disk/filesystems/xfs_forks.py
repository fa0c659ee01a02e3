"""What XFS inodes lead to: extents and their trees, extended attributes, directories' hash trees."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.disk.filesystems.xfs_format import LONG_HEADER, split_evenly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.disk.filesystems.xfs_format import Device, Geometry
    from dibble.disk.filesystems.xfs_space import Space

_LONGEST = (1 << 21) - 1  # blocks of one extent
_NULL64 = (1 << 64) - 1
_LONG_CRC_AT = 64
DEVICE, LOCAL, EXTENTS, TREE = range(4)
"""Formats of a fork."""
NODE_HEADER = 64
NODE_CRC_AT = 12
_NODE_MAGIC = 0x3EBE


@dataclass(frozen=True, slots=True)
class Fork:
    """One fork of an inode: `data` stands in the inode; `blocks` are all that it takes outside."""

    form: int
    data: bytes
    extents: int = 0
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """`count` blocks of a file, from its block `logical` on."""

    logical: int
    fsblock: int
    count: int


def merged(extents: Sequence[Extent]) -> list[Extent]:
    """The same blocks in as few extents as can be; `extents` ascend."""
    found: list[Extent] = []
    for extent in extents:
        last = found[-1] if found else None
        if (
            last
            and last.logical + last.count == extent.logical
            and last.fsblock + last.count == extent.fsblock
            and last.count + extent.count <= _LONGEST
        ):
            found[-1] = Extent(last.logical, last.fsblock, last.count + extent.count)
        else:
            found.append(extent)
    return found


def _record(extent: Extent) -> bytes:
    high = extent.logical << 9 | extent.fsblock >> 43
    low = (extent.fsblock << 21 | extent.count) & _NULL64
    return struct.pack(">2Q", high, low)


def fork_of(  # noqa: PLR0917 - a writer's surroundings
    extents: Sequence[Extent], room: int, owner: int, device: Device, geometry: Geometry, space: Space
) -> Fork:
    """A fork with extents, as a list in the inode when `room` bytes hold it, else as a tree."""
    pieces = []
    for extent in merged(extents):
        for begin in range(0, extent.count, _LONGEST):
            count = min(_LONGEST, extent.count - begin)
            pieces.append(Extent(extent.logical + begin, extent.fsblock + begin, count))
    blocks = sum(piece.count for piece in pieces)
    records = [_record(piece) for piece in pieces]
    if 16 * len(records) <= room:
        return Fork(EXTENTS, b"".join(records), len(records), blocks)
    most = (geometry.block_size - LONG_HEADER) // 16
    root_most = (room - 4) // 16
    keys = [piece.logical for piece in pieces]
    pointers: list[int] = []
    level = 0
    while level == 0 or len(keys) > root_most:
        counts = split_evenly(len(keys), most)
        places = [space.take_whole(1) for _ in counts]
        blocks += len(places)
        begin, firsts = 0, []
        for index, count in enumerate(counts):
            block = bytearray(geometry.block_size)
            left = places[index - 1] if index else _NULL64
            right = places[index + 1] if index + 1 < len(places) else _NULL64
            struct.pack_into(">4sHHQQ", block, 0, b"BMA3", level, count, left, right)
            struct.pack_into(">QQ16sQ", block, 24, geometry.daddr(places[index]), 0, geometry.uuid, owner)
            if level == 0:
                body = b"".join(records[begin : begin + count])
                block[LONG_HEADER : LONG_HEADER + len(body)] = body
            else:
                struct.pack_into(f">{count}Q", block, LONG_HEADER, *keys[begin : begin + count])
                struct.pack_into(f">{count}Q", block, LONG_HEADER + 8 * most, *pointers[begin : begin + count])
            device.seal(geometry.offset(places[index]), block, _LONG_CRC_AT)
            firsts.append(keys[begin])
            begin += count
        keys, pointers, level = firsts, places, level + 1
    data = bytearray(4 + 16 * root_most)
    struct.pack_into(">2H", data, 0, level, len(keys))
    struct.pack_into(f">{len(keys)}Q", data, 4, *keys)
    struct.pack_into(f">{len(keys)}Q", data, 4 + 8 * root_most, *pointers)
    return Fork(TREE, bytes(data), len(records), blocks)


def name_hash(name: bytes) -> int:
    """The hash that names are sorted by in directories and attributes (xfs_da_hashname)."""
    value, whole = 0, len(name) & ~3
    for at in range(0, whole, 4):
        value = (
            name[at] << 21
            ^ name[at + 1] << 14
            ^ name[at + 2] << 7
            ^ name[at + 3]
            ^ (value << 28 & 0xFFFFFFFF | value >> 4)
        )
    for position, at in enumerate(range(whole, len(name))):
        left = len(name) - whole
        if position == 0:
            value = (value << 7 * left & 0xFFFFFFFF) | value >> (32 - 7 * left)
        value ^= name[at] << 7 * (left - 1 - position)
    return value & 0xFFFFFFFF


def block_header(magic: int, fsblock: int, owner: int, geometry: Geometry, *, forward: int = 0, back: int = 0) -> bytes:
    """The beginning of a block of a hash tree (struct xfs_da3_blkinfo), 56 bytes."""
    return struct.pack(">IIHHIQQ16sQ", forward, back, magic, 0, 0, geometry.daddr(fsblock), 0, geometry.uuid, owner)


@dataclass(frozen=True, slots=True)
class Child:
    """A block of a hash tree as its parent knows it: the last hash in it, and its logical block."""

    last_hash: int
    logical: int


def node_counts(leaves: int, most: int) -> list[list[int]]:
    """How many children each node of each level above the leaves has; the last level is the root alone."""
    levels = []
    count = leaves
    while count > 1:
        levels.append(split_evenly(count, most))
        count = len(levels[-1])
    return levels


def write_nodes(  # noqa: PLR0917 - a writer's surroundings
    children: list[Child],
    levels: list[list[int]],
    root: tuple[int, int],
    others: list[tuple[int, int]],
    owner: int,
    device: Device,
    geometry: Geometry,
    size: int,
) -> None:
    """Write the nodes above leaves. `root` and `others` are (logical block, fsblock) of the blocks for them."""
    spare = iter(others)
    for height, counts in enumerate(levels, 1):
        places = [root] if height == len(levels) else [next(spare) for _ in counts]
        parents = []
        begin = 0
        for index, count in enumerate(counts):
            logical, fsblock = places[index]
            forward = places[index + 1][0] if index + 1 < len(places) else 0
            back = places[index - 1][0] if index else 0
            block = bytearray(size)
            block[:56] = block_header(_NODE_MAGIC, fsblock, owner, geometry, forward=forward, back=back)
            struct.pack_into(">HHI", block, 56, count, height, 0)
            part = children[begin : begin + count]
            for number, child in enumerate(part):
                struct.pack_into(">2I", block, NODE_HEADER + 8 * number, child.last_hash, child.logical)
            device.seal(geometry.offset(fsblock), block, NODE_CRC_AT)
            parents.append(Child(part[-1].last_hash, logical))
            begin += count
        children = parents
