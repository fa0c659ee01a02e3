"""LVM2: which extents of which physical volume each logical volume gets, and the volumes written into files.

A value here is one volume node with all its groups. Extents are given out as lvcreate(8) with the policy `normal` does
on empty disks: in the order of the logical volumes, on the physical volumes in the order of their group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID  # noqa: TC003 - dataclass field type

from dibble.disk.sizes import human
from dibble.disk.volumes import lvm_metadata
from dibble.disk.volumes.base import Dracut, Placed, Spot, System
from dibble.disk.volumes.sparse import scatter, write_into
from dibble.errors import DiskLayoutError, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dibble.disk.volumes.base import VolumePlace

EXTENT = 4 << 20
"""Bytes of an extent unless the group says otherwise (vgcreate(8), --physicalextentsize)."""
_MOST_EXTENTS = 1 << 32  # lvm's own numbers of extents have 32 bits


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    name: str
    base: str
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """`extent` in bytes; `pvs` are names."""

    name: str
    pvs: tuple[str, ...]
    extent: int = EXTENT
    tags: tuple[str, ...] = ()
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """`size` in bytes, else `extents` of them, else `percent` of what `of` says: VG, FREE or PVS (all of the group's).

    `stripe` in bytes.
    """

    name: str
    group: str
    size: int | None = None
    extents: int | None = None
    percent: int | None = None
    of: str = ""
    stripes: int = 1
    stripe: int = 64 << 10
    tags: tuple[str, ...] = ()
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` extents of a logical volume from `first` on, spread over one area (physical volume, first extent) for
    each stripe."""

    first: int
    count: int
    areas: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Lvm:
    """All physical volumes, groups and logical volumes of one `lvm` node."""

    name: str
    pvs: tuple[PhysicalVolume, ...]
    groups: tuple[Group, ...]
    lvs: tuple[LogicalVolume, ...]
    seed: UUID
    where: Where = field(default_factory=Where, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return "LVM"

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(pv.base for pv in self.pvs)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(lv.name for lv in self.lvs)

    @property
    def grub_modules(self) -> tuple[str, ...]:
        return ("lvm",)

    @property
    def system(self) -> System:
        """No file: without one LVM looks at every device, and a list of devices would leave out those added later."""
        words = tuple((lv.name, f"rd.lvm.lv={lv.group}/{lv.name}") for lv in self.lvs)
        return System("lvm", "lvm", dracut=Dracut("lvm", words))

    def path_of(self, device: str) -> str:
        group = next(lv.group for lv in self.lvs if lv.name == device)
        return f"/dev/mapper/{mapper_name(group, device)}"

    def needed(self, wanted: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        """The smallest bases, where those of one group that may grow are alike, for the volumes with a percentage."""
        found: dict[str, int] = {}
        for group in self.groups:
            found.update(self._needed_by(group, wanted, fixed))
        unused = {pv.base: lvm_metadata.DATA_AT for pv in self.pvs if pv.base not in found}
        return {**{base: size for base, size in unused.items() if base not in fixed}, **found}

    def _needed_by(self, group: Group, wanted: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        open_bases = [pv.base for pv in self._pvs_of(group) if pv.base not in fixed]
        if not open_bases:
            return {}

        def sizes(extents: int) -> dict[str, int]:
            return {base: lvm_metadata.DATA_AT + extents * group.extent for base in open_bases}

        def lacking(extents: int) -> DiskLayoutError | None:
            try:
                segments = self.allocate(group, {**fixed, **sizes(extents)})
            except DiskLayoutError as error:
                return error
            for lv in self._lvs_of(group):
                if lv.percent is None:
                    continue  # its size is settled, and whether its content fits is seen when all is laid out
                has, need = _length(segments[lv.name]) * group.extent, wanted.get(lv.name, 0)
                if has < need:
                    return _too_small(lv, has, need)
            return None

        enough = 1
        while error := lacking(enough):
            enough *= 2
            if enough >= _MOST_EXTENTS:
                raise error
        too_small = enough // 2
        while enough - too_small > 1:
            middle = (enough + too_small) // 2
            if lacking(middle):
                too_small = middle
            else:
                enough = middle
        return sizes(enough)

    def place(self, sizes: Mapping[str, int]) -> dict[str, Placed]:
        """A logical volume that is one linear piece lies as it is in its base; others are brought there."""
        placed: dict[str, Placed] = {}
        bases = {pv.name: pv.base for pv in self.pvs}
        for group in self.groups:
            for name, segments in self.allocate(group, sizes).items():
                size = _length(segments) * group.extent
                first = segments[0]
                if len(segments) == 1 and len(first.areas) == 1:
                    pv, extent = first.areas[0]
                    placed[name] = Placed(size, bases[pv], lvm_metadata.DATA_AT + extent * group.extent)
                else:
                    placed[name] = Placed(size)
        return placed

    def allocate(self, group: Group, sizes: Mapping[str, int]) -> dict[str, list[Segment]]:
        """The segments of each logical volume of a group, in their order, on bases of `sizes` bytes.

        Raises DiskLayoutError where a volume does not fit.
        """
        total = {}
        for pv in self._pvs_of(group):
            total[pv.name] = extents_of(sizes[pv.base], group.extent)
            if total[pv.name] < 1:
                least = human(lvm_metadata.DATA_AT + group.extent)
                Spot(f'pv "{pv.name}"', pv.where).refuse(
                    f'has {human(sizes[pv.base])} on "{pv.base}"; a volume of one extent takes {least}',
                    f'make "{pv.base}" larger, or the extents of "{group.name}" smaller',
                )
        used = dict.fromkeys(total, 0)
        found = {}
        for lv in self._lvs_of(group):
            count = _asked(lv, group, sum(total.values()), sum(total.values()) - sum(used.values()))
            found[lv.name] = _take(lv, group, count, total, used)
        return found

    def write(self, place: VolumePlace) -> None:
        for group in self.groups:
            sizes = {base: place.regions[base].size for base in self.bases}
            pvs = self._pvs_of(group)
            segments = self.allocate(group, sizes)
            text = lvm_metadata.text(
                lvm_metadata.Description(
                    group=group,
                    pvs=tuple((pv.name, self.uuid_of("pv", pv.name), sizes[pv.base]) for pv in pvs),
                    lvs=tuple((lv, self.uuid_of("lv", lv.name), segments[lv.name]) for lv in self._lvs_of(group)),
                    uuid=self.uuid_of("vg", group.name),
                    time=place.epoch,
                )
            )
            self._write_labels(pvs, text, place)
            regions = {pv.name: place.regions[pv.base] for pv in pvs}
            for lv in self._lvs_of(group):
                pieces = segments[lv.name]
                if len(pieces) > 1 or len(pieces[0].areas) > 1:
                    spread = Spread(tuple(pieces), group.extent, lv.stripe)
                    scatter(place.regions[lv.name], regions, spread.pieces)
        grouped = {name for group in self.groups for name in group.pvs}
        self._write_labels([pv for pv in self.pvs if pv.name not in grouped], "", place)

    def _write_labels(self, pvs: Iterable[PhysicalVolume], text: str, place: VolumePlace) -> None:
        for pv in pvs:
            region = place.regions[pv.base]
            for offset, data in lvm_metadata.sectors(self.uuid_of("pv", pv.name), region.size, text):
                write_into(region, offset, data)

    def uuid_of(self, kind: str, name: str) -> str:
        return lvm_metadata.derived_uuid(self.seed, f"{self.name} {kind} {name}")

    def _pvs_of(self, group: Group) -> list[PhysicalVolume]:
        by_name = {pv.name: pv for pv in self.pvs}
        return [by_name[name] for name in group.pvs]

    def _lvs_of(self, group: Group) -> list[LogicalVolume]:
        return [lv for lv in self.lvs if lv.group == group.name]


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the bytes of a logical volume lie that is not one piece; `extent` and `stripe` in bytes."""

    segments: tuple[Segment, ...]
    extent: int
    stripe: int

    def pieces(self, at: int, size: int) -> Iterable[tuple[str, int, int, int]]:
        """(physical volume, offset in it, offset in the logical volume, size) for `size` bytes from `at` on."""
        end = at + size
        for segment in self.segments:
            first, last = segment.first * self.extent, (segment.first + segment.count) * self.extent
            place, stop = max(at, first), min(end, last)
            while place < stop:
                within = place - first
                if len(segment.areas) == 1:
                    pv, extent = segment.areas[0]
                    length, offset = stop - place, within
                else:
                    number, rest = divmod(within, self.stripe)
                    row, column = divmod(number, len(segment.areas))
                    pv, extent = segment.areas[column]
                    length, offset = min(self.stripe - rest, stop - place), row * self.stripe + rest
                yield pv, lvm_metadata.DATA_AT + extent * self.extent + offset, place, length
                place += length


def extents_of(size: int, extent: int) -> int:
    """How many extents a physical volume of `size` bytes has."""
    return max(0, (size - lvm_metadata.DATA_AT) // extent)


def mapper_name(group: str, volume: str) -> str:
    """The name in /dev/mapper: hyphens of either are doubled (libdm/libdm-string.c, `dm_build_dm_name`)."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def _length(segments: Sequence[Segment]) -> int:
    return sum(segment.count for segment in segments)


def _asked(lv: LogicalVolume, group: Group, total: int, free: int) -> int:
    """Extents for a volume: a size and a percentage are rounded down, as DIB and lvcreate do; stripes must be full."""
    if lv.size is not None:
        count = lv.size // group.extent
    elif lv.extents is not None:
        count = lv.extents
    else:
        assert lv.percent is not None, "the node has one of the three"
        count = (free if lv.of == "FREE" else total) * lv.percent // 100
    if lv.stripes > 1:
        # lvcreate rounds a size up and a share down (lib/metadata/lv_manip.c, "stripe boundary size")
        count = count // lv.stripes * lv.stripes if lv.percent is not None else -(-count // lv.stripes) * lv.stripes
    if count < 1:
        _spot(lv).refuse(
            f'has less than one extent of {human(group.extent)} in "{group.name}"',
            f'give it at least {human(group.extent * lv.stripes)}, or make "{group.name}" larger',
        )
    if count > free:
        _spot(lv).refuse(
            f'takes {human(count * group.extent)}, but "{group.name}" has {human(free * group.extent)} left for it',
            f'make it smaller, write "extents: 100%FREE", or give "{group.name}" more space',
        )
    return count


def _take(lv: LogicalVolume, group: Group, count: int, total: Mapping[str, int], used: dict[str, int]) -> list[Segment]:
    segments: list[Segment] = []
    done = 0
    while done < count:
        free = [name for name in total if used[name] < total[name]]
        if lv.stripes > 1:
            # The stripes lie on the volumes with most space, so that they become as long as they can.
            free.sort(key=lambda name: used[name] - total[name])
        chosen = free[: lv.stripes]
        if len(chosen) < lv.stripes:
            _spot(lv).refuse(
                f'has {lv.stripes} stripes, but not so many physical volumes of "{group.name}" have space for it',
                "use fewer stripes, or make the physical volumes alike in size",
            )
        chosen = [name for name in total if name in chosen]
        each = min((count - done) // lv.stripes, *(total[name] - used[name] for name in chosen))
        segments.append(Segment(done, each * lv.stripes, tuple((name, used[name]) for name in chosen)))
        for name in chosen:
            used[name] += each
        done += each * lv.stripes
    return segments


def _too_small(lv: LogicalVolume, has: int, need: int) -> DiskLayoutError:
    return DiskLayoutError(
        f'lv "{lv.name}" has {human(has)}, its content needs {human(need)}',
        hint="give it a larger size, or a larger share of its group",
        where=lv.where,
    )


def _spot(lv: LogicalVolume) -> Spot:
    return Spot(f'lv "{lv.name}"', lv.where)
