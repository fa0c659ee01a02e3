"""The disks and volumes of a plan: as a build will lay them out, as far as that is known before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.plan.plan import PlannedDisk, PlannedPart, PlannedRaw, PlannedVolume
from dibble.store.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.disk.model import Image, Layout
    from dibble.run.prepare import Build
    from dibble.run.state import State


def planned_disks(build: Build, state: State) -> tuple[tuple[PlannedDisk, ...], tuple[PlannedVolume, ...]]:
    """Both empty where no output is made of a disk. Sizes that depend on the content follow the last build where need
    be. Raises DiskLayoutError when what is known does not fit."""
    from dibble.disk.layout import check_for_any_content, layout_of
    from dibble.disk.model import ContentSize
    from dibble.registry import load

    if all(load("outputs", name).info.reads == "tree" for name in build.request.outputs):
        return (), ()
    facts = Facts(build.store)
    exact = facts.get(*build.content_fact(state.tree))
    known = exact or facts.get(*build.content_fact())
    fixed = all(image.size or build.defaults.image_size_bytes for image in build.graph.images)
    layout = None
    if known:
        layout = layout_of(build.graph, ContentSize(known["allocated"], known["files"]), build.defaults)
    elif fixed:
        layout = layout_of(build.graph, ContentSize({}, {}), build.defaults)
    else:
        check_for_any_content(build.graph, build.defaults)
    drawn = _Drawn(build, layout, estimated=not (exact or fixed))
    return tuple(drawn.disks()), tuple(drawn.volumes())


@dataclass(frozen=True, slots=True)
class _Drawn:
    build: Build
    layout: Layout | None
    estimated: bool

    def disks(self) -> Iterator[PlannedDisk]:
        graph = self.build.graph
        tables = {table.base: table for table in graph.tables}
        for image in graph.images:
            table = tables.get(image.name)
            partitions = table.partitions if table else ()
            parts = tuple(self._part(part.name, part.type, part.size) for part in partitions)
            yield PlannedDisk(
                image.name,
                table.label if table else "none",
                self._image_size(image),
                parts or (self._part(image.name, "", image.size),),
                self.estimated,
                self._raws(image.name),
            )

    def volumes(self) -> Iterator[PlannedVolume]:
        for volume in self.build.graph.volumes:
            parts = tuple(self._part(name, "", None) for name in volume.devices)
            yield PlannedVolume(volume.name, volume.kind, volume.bases, parts)

    def _raws(self, image: str) -> tuple[PlannedRaw, ...]:
        graph = self.build.graph
        found = [
            PlannedRaw(raw.name, raw.base, raw.file, raw.offset)
            for raw in graph.raws
            if graph.image_of(raw.base) == image
        ]
        return tuple(sorted(found, key=lambda raw: (raw.base != image, raw.base, raw.offset)))

    def _image_size(self, image: Image) -> int | None:
        return (
            self.layout.image_sizes[image.name] if self.layout else image.size or self.build.defaults.image_size_bytes
        )

    def _part(self, name: str, kind: str, size: int | None) -> PlannedPart:
        """`size` is what the description says."""
        graph = self.build.graph
        extent = self.layout.extents.get(name) if self.layout else None
        system = next((system for system in graph.filesystems if system.base == name), None)
        point = next((mount.point for mount in graph.mounts if system and mount.base == system.name), "")
        on_disk = extent is not None and any(image.name == extent.image for image in graph.images)
        return PlannedPart(
            name=name,
            kind=kind,
            offset=extent.offset if extent and on_disk else None,
            size=extent.size if extent else size,
            filesystem=system.type if system else "",
            label=system.label if system else "",
            mount=point,
        )
