"""Writes the disks of a layout: sparse files, partition tables, file systems filled from the tree, none mounted."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dibble.disk.filesystems.base import Place
from dibble.disk.model import Disk
from dibble.disk.raw import write_raws
from dibble.disk.tables import gpt, ids, mbr
from dibble.disk.volumes.base import Region, VolumePlace
from dibble.registry import load
from dibble.sandbox import mounts
from dibble.store.places import disk_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.disk.filesystems.base import FilesystemKind
    from dibble.disk.model import Filesystem, Graph, Image, Layout, Table
    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Last:
    """Files of the file system mounted at `point` that say what is in the others, which are written before it.

    `files` is called with the layout and the root hashes of its verity devices, by name; it gives the content of each,
    by its path below `point`. In the tree stands something of about the same size in their places.
    """

    point: str
    files: Callable[[Layout, Mapping[str, bytes]], Mapping[str, bytes]]


def write_disk(  # noqa: PLR0917 - everything that a disk is made from
    layout: Layout,
    root: Path,
    directory: Path,
    toolbox: Toolbox,
    events: Events,
    begun: Callable[[Mapping[str, Path]], None] = lambda images: None,
    *,
    epoch: int,
    last: Last | None = None,
) -> Disk:
    """Write every image of `layout` as `NAME.raw` in `directory`, an empty directory that the tools see too.

    `root` is the finished tree, with all mount points in it (`make_mount_points`), none of them mounted. File systems
    are written first, then volumes from the topmost down, so that each finds what is on it complete; behind them the
    file system of `last`, which is on no volume. `begun` is called when the files are there, of their full size and
    empty, for those who follow how they are filled. Runs inside the build's namespaces, as its root. Raises OutputError
    when content does not fit, HostError when the host's disk is full.
    """
    graph = layout.graph
    images = {image.name: directory / f"{image.name}.raw" for image in graph.images}
    for image, path in images.items():
        _make_file(path, layout.image_sizes[image])
    own = {name: extent.size for name, extent in layout.extents.items() if extent.image == name and name not in images}
    files = {**images, **{name: directory / f"{number}.device" for number, name in enumerate(own)}}
    for device, size in own.items():
        _make_file(files[device], size)
    begun(images)
    try:
        for table in graph.tables:
            _write_table(layout, table, images[table.base])
        write_raws(layout, root, images)
        points = [mount.point for mount in graph.mounts if mount.point.startswith("/")]
        contents = {point: root / point.strip("/") for point in points}
        points_of = {filesystem.name: _point_of(graph, filesystem) for filesystem in graph.filesystems}

        def fill(filesystem: Filesystem, content: Path | None) -> None:
            below = _below(root, points, points_of[filesystem.name]) if content else []
            with events.activity(f"file system {filesystem.name} ({filesystem.type})"), mounts.hidden(below):
                _write_filesystem(layout, filesystem, content, files, toolbox, events, epoch)

        waiting = [one for one in graph.filesystems if last is not None and points_of[one.name] == last.point]
        for filesystem in graph.filesystems:
            if filesystem not in waiting:
                fill(filesystem, contents.get(points_of[filesystem.name]))
        regions = {
            name: Region(files[extent.image], extent.offset, extent.size) for name, extent in layout.extents.items()
        }
        place = VolumePlace(regions, directory, toolbox, events, epoch)
        for volume in reversed(graph.volumes):
            with events.activity(f"volumes of {volume.name}"):
                volume.write(place)
            for device in volume.devices:
                if device in own:
                    files[device].unlink()
        if last is not None and waiting:
            new = last.files(layout, place.root_hashes)
            with _with_files(contents[last.point], new, directory / "last", epoch) as content:
                fill(waiting[0], content)
    except OSError as error:
        raise disk_full(error, directory) from error
    return Disk(images, layout)


def _make_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def make_mount_points(graph: Graph, root: Path) -> None:
    """Make the directories of the tree at which file systems are mounted, where the tree has none."""
    for mount in graph.mounts:
        if mount.point.startswith("/"):
            (root / mount.point.strip("/")).mkdir(parents=True, exist_ok=True)


def _point_of(graph: Graph, filesystem: Filesystem) -> str:
    return next((mount.point for mount in graph.mounts if mount.base == filesystem.name), "")


@contextlib.contextmanager
def _with_files(content: Path, files: Mapping[str, bytes], copy: Path, epoch: int) -> Iterator[Path]:
    """A copy of a directory in which some files have another content; others may be reading the directory itself."""
    shutil.copytree(content, copy, symlinks=True)
    for name, data in files.items():
        path = copy / name
        path.write_bytes(data)
        os.utime(path, (epoch, epoch))
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def _image_of(layout: Layout, name: str) -> Image:
    return next(image for image in layout.graph.images if image.name == name)


def _write_table(layout: Layout, table: Table, path: Path) -> None:
    size = layout.image_sizes[table.base]
    sector_size = _image_of(layout, table.base).sector_size
    if table.label == "mbr":
        disk_id = ids.mbr_disk_id(layout.seed, table)
        parts = mbr.sectors(table, layout.extents, size, disk_id=disk_id, sector_size=sector_size)
    else:
        parts = gpt.sectors(
            table,
            layout.extents,
            size,
            disk_guid=ids.disk_guid(layout.seed, table),
            partition_guid=lambda name: ids.partition_guid(layout.seed, table, name),
            sector_size=sector_size,
        )
    with path.open("r+b") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)


def _below(root: Path, points: Sequence[str], point: str) -> list[Path]:
    """The mount points below another: as empty directories they stay part of its file system."""
    base = PurePosixPath(point)
    nested = {PurePosixPath(other) for other in points if base in PurePosixPath(other).parents}
    return [root / str(other).strip("/") for other in sorted(nested) if not nested & set(other.parents)]


def _write_filesystem(  # noqa: PLR0917 - internal, called once
    layout: Layout,
    filesystem: Filesystem,
    content: Path | None,
    files: Mapping[str, Path],
    toolbox: Toolbox,
    events: Events,
    epoch: int,
) -> None:
    kind: FilesystemKind = load("filesystems", filesystem.type)()
    extent = layout.filesystem_extent(filesystem)
    place = Place(
        image=files[extent.image],
        extent=extent,
        content=content,
        toolbox=toolbox,
        events=events,
        epoch=epoch,
        sector_size=layout.sector_size_of(filesystem.base),
    )
    kind.write(filesystem, place)
