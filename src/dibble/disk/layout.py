"""Sizes and offsets of everything on the disks, computed before a byte is written (contract.md 5.3). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.disk.model import ContentSize, Extent, Layout
from dibble.disk.raw import check_raws
from dibble.disk.sizes import human, round_up
from dibble.disk.tables import gpt, mbr
from dibble.errors import DiskLayoutError
from dibble.registry import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from dibble.disk.filesystems.base import FilesystemKind
    from dibble.disk.model import Defaults, Filesystem, Graph, Image, Table
    from dibble.disk.volumes.base import Volume

TABLES: dict[str, ModuleType] = {"mbr": mbr, "gpt": gpt}
FILL = 0.6
"""The share of an open-sized file system that its content takes (contract.md 5.3)."""
_ROUND = 64 << 10  # bytes; an image's size is a multiple of it (contract.md 5.3)


_MUCH = 64 << 30
"""Bytes of a root that is larger than any whose size is left to us."""


def check_for_any_content(graph: Graph, defaults: Defaults) -> None:
    """Raise the DiskLayoutError that an image's size, computed from its content, cannot mend: neither that of an empty
    root nor that of a large one."""
    try:
        layout_of(graph, ContentSize({}, {}), defaults)
    except DiskLayoutError:
        layout_of(graph, ContentSize({"/": _MUCH}, {}), defaults)


def layout_of(graph: Graph, content: ContentSize, defaults: Defaults) -> Layout:
    """Give every image and partition its place.

    An image's size is the one that its node says, else the one asked for, else what its content needs with room to
    grow. Raises DiskLayoutError where something cannot fit, at the node's place in the configuration.
    """
    sizes: dict[str, int] = {}
    extents: dict[str, Extent] = {}
    tables = {table.base: table for table in graph.tables}
    wanted = _wanted_of_bases(graph, content, defaults)
    for image in graph.images:
        table = tables.get(image.name)
        size = image.size or defaults.image_size_bytes
        if size is None:
            size = _open_size(image, table, wanted)
        elif size % image.sector_size:
            raise DiskLayoutError(
                f"the size of {image.name}, {size} bytes, is no multiple of its sectors of {image.sector_size}",
                where=image.where,
            )
        sizes[image.name] = size
        extents[image.name] = Extent(image.name, 0, size)
        if table is not None:
            extents.update(TABLES[table.label].place(table, size, image.sector_size))
    sector_sizes: dict[str, int] = {}
    for volume in graph.volumes:
        _place_volume(volume, extents, sector_sizes)
    layout = Layout(graph, sizes, extents, defaults.seed, sector_sizes)
    check_raws(layout)
    for filesystem in graph.filesystems:
        _check_room(layout, filesystem, content, defaults)
    return layout


def _place_volume(volume: Volume, extents: dict[str, Extent], sector_sizes: dict[str, int]) -> None:
    """Add the extents of a volume's devices to those of its bases, and sizes of sectors that are its own."""
    for name, placed in volume.place({base: extents[base].size for base in volume.bases}).items():
        if placed.sector_size:
            sector_sizes[name] = placed.sector_size
        if placed.base:
            below = extents[placed.base]
            assert placed.offset + placed.size <= below.size, "a device lies within its base"
            extents[name] = Extent(below.image, below.offset + placed.offset, placed.size)
        else:
            extents[name] = Extent(name, 0, placed.size)


def _wanted_of_bases(graph: Graph, content: ContentSize, defaults: Defaults) -> dict[str, int]:
    """Bytes that every device should have for what is on it, also by way of volumes."""
    wanted = {}
    for filesystem in graph.filesystems:
        wanted[filesystem.base] = _wanted(graph, filesystem, content, defaults)
    fixed = _fixed_sizes(graph, defaults)
    for volume in reversed(graph.volumes):
        wanted.update(volume.needed({name: wanted.get(name, 0) for name in volume.devices}, fixed))
    return wanted


def _fixed_sizes(graph: Graph, defaults: Defaults) -> dict[str, int]:
    """The devices whose size does not depend on the content."""
    fixed: dict[str, int] = {}
    tables = {table.base: table for table in graph.tables}
    for image in graph.images:
        table = tables.get(image.name)
        size = image.size or defaults.image_size_bytes
        if size is not None:
            fixed[image.name] = size
        if table is not None and size is not None:
            extents = TABLES[table.label].place(table, size, image.sector_size)
            fixed.update({name: extent.size for name, extent in extents.items()})
        elif table is not None:
            fixed.update({part.name: part.size for part in table.partitions if part.size is not None})
    for volume in graph.volumes:
        if all(base in fixed for base in volume.bases):
            fixed.update({name: placed.size for name, placed in volume.place(fixed).items()})
    return fixed


def _open_size(image: Image, table: Table | None, wanted: Mapping[str, int]) -> int:
    if table is None:
        return round_up(wanted.get(image.name, 0), _ROUND) or _ROUND
    names = {partition.name for partition in table.partitions if partition.size is None}
    mine = {name: size for name, size in wanted.items() if name in names}
    size: int = TABLES[table.label].disk_size_for(table, mine, image.sector_size)
    return size


def _wanted(graph: Graph, filesystem: Filesystem, content: ContentSize, defaults: Defaults) -> int:
    """Bytes for a file system whose size nobody has said."""
    allocated, files = _content_of(graph, filesystem, content)
    if defaults.image_extra_size_bytes is not None and _point(graph, filesystem) == "/":
        size = allocated + defaults.image_extra_size_bytes
    else:
        size = int(allocated / FILL)
    if filesystem.type == "ext4":
        size += defaults.journal_mib << 20
    return max(size, _kind(filesystem).minimum_size(allocated, files, filesystem, defaults))


def _check_room(layout: Layout, filesystem: Filesystem, content: ContentSize, defaults: Defaults) -> None:
    allocated, files = _content_of(layout.graph, filesystem, content)
    least = _kind(filesystem).minimum_size(allocated, files, filesystem, defaults)
    extent = layout.filesystem_extent(filesystem)
    if extent.size < least:
        point = _point(layout.graph, filesystem) or filesystem.name
        raise DiskLayoutError(
            f"{point} needs at least {human(least)}, but {filesystem.base} has {human(extent.size)}:"
            f" {human(least - extent.size)} are missing; {human(allocated)} are content, in {files} files and"
            f" directories, and {human(least - allocated)} what {filesystem.type} takes for itself",
            hint="give a larger --image-size, or a larger partition; without either dibble computes the size",
            where=filesystem.where,
        )


def _point(graph: Graph, filesystem: Filesystem) -> str:
    return next((mount.point for mount in graph.mounts if mount.base == filesystem.name), "")


def _content_of(graph: Graph, filesystem: Filesystem, content: ContentSize) -> tuple[int, int]:
    point = _point(graph, filesystem)
    point = "/" + point.strip("/") if point.startswith("/") else point
    return content.allocated.get(point, 0), content.files.get(point, 0)


def _kind(filesystem: Filesystem) -> FilesystemKind:
    kind: FilesystemKind = load("filesystems", filesystem.type)()
    return kind
