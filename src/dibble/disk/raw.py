"""Files of the tree at fixed places of a disk, outside of file systems: where they may stand, and writing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.disk.sizes import human
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dibble.disk.model import Layout, Raw

_MBR = range(440, 512)
"""Bytes of the disk's signature and the table of an MBR (UEFI 2.10, 5.2.1); what is before is code."""
_GPT_SECTORS = 34
"""Protective MBR, header and entries of a GPT; at the end of the disk, header and entries once more: one less."""
_FIRST_LOGICAL = 5


def check_raws(layout: Layout) -> None:
    """Raises DiskLayoutError for a place that is something else's."""
    for raw in layout.graph.raws:
        room_of(layout, raw)


def room_of(layout: Layout, raw: Raw) -> tuple[int, int]:
    """From where to where, in bytes of the image, a file may lie. Raises DiskLayoutError where it may not begin."""
    extent = layout.extents[raw.base]
    start, end = extent.offset + raw.offset, extent.offset + extent.size
    if start >= end:
        raise DiskLayoutError(
            f'raw "{raw.name}" begins at {human(raw.offset)}, but "{raw.base}" ends at {human(extent.size)}',
            hint='give a smaller "offset", or a larger size to what it stands on',
            where=raw.where,
        )
    for what, first, behind in _taken(layout, raw):
        if first <= start < behind:
            raise DiskLayoutError(
                f'raw "{raw.name}" begins at {human(start)}, which is within {what}',
                hint='choose another "offset"; with "align" in the table, partitions begin later',
                where=raw.where,
            )
        if start < first:
            end = min(end, first)
    return start, end


def _taken(layout: Layout, raw: Raw) -> Iterator[tuple[str, int, int]]:
    """What else has its place on the image: what it is, its first byte, and the first one behind it."""
    graph, image = layout.graph, layout.extents[raw.base].image
    for other in graph.raws:
        extent = layout.extents[other.base]
        if other.name != raw.name and extent.image == image:
            yield f'raw "{other.name}"', extent.offset + other.offset, extent.offset + other.offset + 1
    table = next((table for table in graph.tables if table.base == image), None)
    if table is None or raw.base != image:
        return
    size = layout.image_sizes[image]
    sector = next(one.sector_size for one in graph.images if one.name == image)
    yield "the partition table", _MBR.start, _MBR.stop
    if table.label == "gpt":
        yield "the partition table", _MBR.start, _GPT_SECTORS * sector
        yield "the copy of the partition table", size - (_GPT_SECTORS - 1) * sector, size
    for partition in table.partitions:
        extent = layout.extents[partition.name]
        yield f'partition "{partition.name}"', extent.offset, extent.offset + extent.size
    logical = [layout.extents[one.name].offset for one in table.partitions if one.number >= _FIRST_LOGICAL]
    if table.label == "mbr" and logical:
        yield "the extended partition", min(logical) - table.align, size


def write_raws(layout: Layout, root: Path, images: Mapping[str, Path]) -> None:
    """Write them into the images. Raises DiskLayoutError for a file that is not there, or larger than its room."""
    for raw in layout.graph.raws:
        start, end = room_of(layout, raw)
        path = root / raw.file.lstrip("/")
        if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
            raise DiskLayoutError(
                f'raw "{raw.name}" is to be {raw.file}, and the image has no such file',
                hint="let an element put it there, or the package that brings it be installed",
                where=raw.where,
            )
        size = path.stat().st_size
        if size > end - start:
            raise DiskLayoutError(
                f'raw "{raw.name}" takes {human(size)}, but there are {human(end - start)} from its offset on',
                hint='with "align" in the table, partitions begin later',
                where=raw.where,
            )
        with images[layout.extents[raw.base].image].open("r+b") as disk:
            disk.seek(start)
            disk.write(path.read_bytes())
