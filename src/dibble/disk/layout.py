"""Sizes and offsets of everything on the disks, computed before a byte is written (contract.md 5.3). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.disk.model import Extent, Layout
from dibble.disk.sizes import human, round_up
from dibble.disk.tables import gpt, mbr
from dibble.errors import DiskLayoutError
from dibble.registry import load

if TYPE_CHECKING:
    from types import ModuleType

    from dibble.disk.filesystems.base import FilesystemKind
    from dibble.disk.model import ContentSize, Defaults, Filesystem, Graph, Image, Table

TABLES: dict[str, ModuleType] = {"mbr": mbr, "gpt": gpt}
FILL = 0.6
"""The share of an open-sized file system that its content takes (contract.md 5.3)."""
_ROUND = 64 << 10  # bytes; an image's size is a multiple of it (contract.md 5.3)


def layout_of(graph: Graph, content: ContentSize, defaults: Defaults) -> Layout:
    """Give every image and partition its place.

    An image's size is the one that its node says, else the one asked for, else what its content needs with room to
    grow. Raises DiskLayoutError where something cannot fit, at the node's place in the configuration.
    """
    sizes: dict[str, int] = {}
    extents: dict[str, Extent] = {}
    tables = {table.base: table for table in graph.tables}
    for image in graph.images:
        table = tables.get(image.name)
        size = image.size or defaults.image_size_bytes
        if size is None:
            size = _open_size(graph, image, table, content, defaults)
        elif size % image.sector_size:
            raise DiskLayoutError(
                f"the size of {image.name}, {size} bytes, is no multiple of its sectors of {image.sector_size}",
                where=image.where,
            )
        sizes[image.name] = size
        extents[image.name] = Extent(image.name, 0, size)
        if table is not None:
            extents.update(TABLES[table.label].place(table, size, image.sector_size))
    layout = Layout(graph, sizes, extents, defaults.seed)
    for filesystem in graph.filesystems:
        _check_room(layout, filesystem, content, defaults)
    return layout


def _open_size(graph: Graph, image: Image, table: Table | None, content: ContentSize, defaults: Defaults) -> int:
    wanted = {}
    for filesystem in graph.filesystems:
        wanted[filesystem.base] = _wanted(graph, filesystem, content, defaults)
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
            f"{point} needs at least {human(least)}, but {filesystem.base} has {human(extent.size)}",
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
