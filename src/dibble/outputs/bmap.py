"""A block map of a disk: which blocks of it must be written to a device and which hold nothing, with checksums.

The format is that of bmaptool, version 2.0 (bmap-tools, "The bmap file format"); `bmaptool copy N.raw DEVICE` finds
`N.bmap` by its name. A device may hold anything before, so that a block is zero here is no reason to leave it out:
blocks are left out only where nobody will read them, which is known of what is outside of all partitions, of blocks
that an ext file system has as free, and of the end of FAT, erofs, squashfs and swap. All else is in the map, zeros too:
of xfs, btrfs and f2fs every block, and of what lies in volumes.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import TYPE_CHECKING, ClassVar

from dibble.disk.filesystems.ext_free import free_ranges
from dibble.outputs.base import OutputInfo
from dibble.outputs.pieces import PIECE, is_zero
from dibble.store.sparse import data_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from dibble.disk.model import Layout
    from dibble.outputs.base import Writing

    Range: TypeAlias = tuple[int, int]
    """Begin and end, in bytes."""

_SECTOR = 512
_FAT12, _FAT16 = 4085, 65525  # clusters below which FAT's entries have 12 and 16 bits
_BLOCK = 4096  # bmaptool takes the host's page; this is what it is on amd64
_UNIT = 64 << 10
"""What is in the map or not: finer, maps would be long; coarser, more zeros would be written."""
_TABLES = 1 << 20  # at both ends of a disk: partition tables, and marks of what was on the device before
_EXT = ("ext2", "ext3", "ext4")
_SUM = "0" * 64


class Bmap:
    """`N.bmap`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="bmap", reads="disk", summary="which blocks of the raw disk to write, for bmaptool"
    )

    def write(self, writing: Writing) -> None:
        raw = writing.disk_file.resolve()
        descriptor = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            with writing.events.activity("bmap") as activity:
                content = _content(descriptor, size)
                free = _free(writing.disk.layout, writing.image, descriptor, size)
                ranges = list(_ranges(size, content, free))
                lines = []
                for begin, end in ranges:
                    first, last = begin // _BLOCK, (end - 1) // _BLOCK
                    blocks = f"{first}-{last}" if last > first else f"{first}"
                    lines.append(f'        <Range chksum="{_digest(descriptor, begin, end)}"> {blocks} </Range>\n')
                    activity.progress(end, size, "bytes")
        finally:
            os.close(descriptor)
        mapped = sum(-(-end // _BLOCK) - begin // _BLOCK for begin, end in ranges)
        text = _document(size, mapped, "".join(lines), _SUM)
        writing.target_file.write_text(
            _document(size, mapped, "".join(lines), hashlib.sha256(text.encode()).hexdigest())
        )


def _content(descriptor: int, size: int) -> set[int]:
    """The numbers of the units that are not all zeros."""
    found = set()
    for begin, length in data_ranges(descriptor, 0, size):
        position = begin - begin % PIECE
        while position < begin + length:
            data = os.pread(descriptor, min(PIECE, size - position), position)
            if not is_zero(data):
                for at in range(0, len(data), _UNIT):
                    if not is_zero(data[at : at + _UNIT]):
                        found.add((position + at) // _UNIT)
            position += PIECE
    return found


def _free(layout: Layout, image: str, descriptor: int, size: int) -> list[Range]:
    """Where a device may keep what it has, in order, not overlapping."""
    extents = [
        layout.extents[partition.name]
        for table in layout.graph.tables
        if table.base == image
        for partition in table.partitions
    ]
    used: list[Range] = [(0, _TABLES), (size - _TABLES, size)]
    used += [(extent.offset, extent.offset + extent.size) for extent in extents]
    if not extents:
        used.append((0, size))
    free = _between(used, size)
    for filesystem in layout.graph.filesystems:
        extent = layout.filesystem_extent(filesystem)
        if extent.image != image or layout.graph.below(filesystem.base)[1:] not in ((), (image,)):
            continue  # in a volume, whose own blocks are not told apart here
        if filesystem.type in _EXT:
            free += free_ranges(descriptor, extent.offset)
        elif filesystem.type in _USED:
            used_bytes = _USED[filesystem.type](descriptor, extent.offset)
            free.append((extent.offset + used_bytes, extent.offset + extent.size))
    return sorted(piece for piece in free if piece[0] < piece[1])


def _between(used: Sequence[Range], size: int) -> list[Range]:
    free, position = [], 0
    for begin, end in sorted(used):
        if begin > position:
            free.append((position, begin))
        position = max(position, end)
    return [*free, (position, size)] if position < size else free


def _used_by_fat(descriptor: int, offset: int) -> int:
    """Bytes up to the end of the last cluster that is taken (Microsoft's FAT specification, sections 3 and 4)."""
    head = os.pread(descriptor, _SECTOR, offset)
    sector, per_cluster, reserved, tables, in_root, total, _, table = struct.unpack_from("<HBHBHHBH", head, 11)
    total = total or struct.unpack_from("<I", head, 32)[0]
    table = table or struct.unpack_from("<I", head, 36)[0]
    data = reserved + tables * table + -(-in_root * 32 // sector)
    clusters = (total - data) // per_cluster
    bits = 12 if clusters < _FAT12 else 16 if clusters < _FAT16 else 32
    entries = int.from_bytes(os.pread(descriptor, table * sector, offset + reserved * sector), "little")
    entries &= (1 << (clusters + 2) * bits) - 1
    last = max(entries.bit_length() - 1, 2 * bits) // bits  # the number of the last one; the first is 2
    return int((data + (last - 1) * per_cluster) * sector)


def _used_by_squashfs(descriptor: int, offset: int) -> int:
    """bytes_used (Linux, fs/squashfs/squashfs_fs.h)."""
    return int(struct.unpack("<Q", os.pread(descriptor, 8, offset + 40))[0])


def _used_by_erofs(descriptor: int, offset: int) -> int:
    """blkszbits and blocks (Linux, fs/erofs/erofs_fs.h)."""
    head = os.pread(descriptor, 64, offset + 1024)
    return int(struct.unpack_from("<I", head, 36)[0]) << head[12]


_USED: Mapping[str, Callable[[int, int], int]] = {
    "fat": _used_by_fat,
    "vfat": _used_by_fat,
    "squashfs": _used_by_squashfs,
    "erofs": _used_by_erofs,
    "swap": lambda _, __: _UNIT,  # the header is in the first page; pages are written before they are read
}
"""Type of a file system → how many of its bytes are in use, from (descriptor of the disk, where it begins)."""


def _ranges(size: int, content: set[int], free: Sequence[Range]) -> Iterator[Range]:
    """What is in the map: the units with content, and those that do not lie whole in a free range."""
    left_out: set[int] = set()
    for begin, end in free:
        whole_end = end // _UNIT if end < size else -(-size // _UNIT)
        left_out.update(unit for unit in range(-(-begin // _UNIT), whole_end) if unit not in content)
    start = None
    for unit in range(-(-size // _UNIT)):
        if unit in left_out:
            if start is not None:
                yield start * _UNIT, unit * _UNIT
            start = None
        elif start is None:
            start = unit
    if start is not None:
        yield start * _UNIT, size


def _digest(descriptor: int, begin: int, end: int) -> str:
    found = hashlib.sha256()
    while begin < end:
        data = os.pread(descriptor, min(PIECE, end - begin), begin)
        found.update(data)
        begin += len(data)
    return found.hexdigest()


def _document(size: int, mapped: int, ranges: str, checksum: str) -> str:
    """`checksum` is of the document itself, with zeros in its place."""
    return f"""\
<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> {size} </ImageSize>
    <BlockSize> {_BLOCK} </BlockSize>
    <BlocksCount> {-(-size // _BLOCK)} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {checksum} </BmapFileChecksum>
    <BlockMap>
{ranges}    </BlockMap>
</bmap>
"""
