"""`lvm`: physical volumes, volume groups and logical volumes (contract.md 5.5; names and options of lvm(8))."""

from __future__ import annotations

import re
from collections.abc import Sequence  # noqa: TC003 - a type alias at run time
from typing import TYPE_CHECKING, NoReturn
from uuid import uuid5

from dibble.disk.nodes.base import Members, NodeInfo, nearest
from dibble.disk.nodes.lvm_options import Options, parse_options
from dibble.disk.sizes import human, parse_size
from dibble.disk.volumes.lvm import EXTENT, Group, LogicalVolume, Lvm, PhysicalVolume, mapper_name

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry

_NAME = re.compile(r"(?!-)[a-zA-Z0-9+_.-]+")
_LONGEST = 127
"""Characters of a name in the device mapper (DM_NAME_LEN of linux/dm-ioctl.h, less its end)."""
_RESERVED = re.compile(
    r"\.{1,2}|(snapshot|pvmove).*|.*_(mlog|mimage|pmspare|r?image|rmeta|t?data|t?meta|vorigin|vdata|cdata|cmeta|corig|cvol|imeta)"
    r"(_.*)?"
)
_EXTENTS = re.compile(r"(?P<number>[0-9]+)(?:%(?P<of>VG|FREE|PVS|ORIGIN))?", re.IGNORECASE)


class LvmNode:
    info = NodeInfo(
        "lvm",
        level=1,
        members=(
            Members("pvs", ("options",), "outside"),
            Members("vgs", ("options",), "inside"),
            Members("lvs", ("size", "extents", "type", "thin-pool", "options"), "inside"),
        ),
        several=True,
    )

    @staticmethod
    def parse(entry: Entry, context: Context) -> Lvm:
        parts = {kind: [part for part in entry.members if part.kind == kind] for kind in ("pv", "vg", "lv")}
        for kind, what in (("pv", "physical volume"), ("vg", "volume group"), ("lv", "logical volume")):
            if not parts[kind]:
                entry.refuse(f'needs "{kind}s"', f"list at least one {what} with a name", f"{kind}s")
        pvs = tuple(_physical(part, context) for part in parts["pv"])
        groups = _groups(parts["vg"], pvs)
        lvs = tuple(_logical(part, groups) for part in parts["lv"])
        return Lvm(entry.name, pvs, groups, lvs, uuid5(context.defaults.seed, "lvm"), entry.where)


def _physical(entry: Entry, context: Context) -> PhysicalVolume:
    parse_options(entry, "pvcreate")
    return PhysicalVolume(entry.name, context.device(entry), entry.where)


def _groups(entries: Sequence[Entry], pvs: Sequence[PhysicalVolume]) -> tuple[Group, ...]:
    known = [pv.name for pv in pvs]
    owners: dict[str, str] = {}
    groups = []
    for entry in entries:
        _check_name(entry, entry.name)
        members = _bases(entry)
        if not members:
            entry.refuse('has no "base"', 'add "base: [PV]" with the names of its physical volumes', "base")
        for name in members:
            if name not in known:
                _unknown(entry, name, "physical volume", known)
            if name in owners:
                reason = f'has the physical volume "{name}", which belongs to "{owners[name]}" already'
                entry.refuse(reason, "give each physical volume to one group, once", "base")
            owners[name] = entry.name
        options = parse_options(entry, "vgcreate")
        groups.append(Group(entry.name, members, _extent(entry, options), options.tags, entry.where))
    return tuple(groups)


def _bases(entry: Entry) -> tuple[str, ...]:
    return (entry.base,) if entry.base and entry.is_word("base") else entry.words("base")


def _extent(entry: Entry, options: Options) -> int:
    extent = options.extent or EXTENT
    if extent & (extent - 1) or extent < 1 << 10:
        # vgcreate(8): a power of two of at least one sector, or a multiple of 128 KiB; the former is what all read.
        entry.refuse(
            f"has extents of {human(extent)}, which is no power of two", "write 4m, 32m or the like", "options"
        )
    return extent


def _logical(entry: Entry, groups: Sequence[Group]) -> LogicalVolume:
    known = [group.name for group in groups]
    bases = _bases(entry)
    if len(bases) != 1:
        entry.refuse('has no "base", or several', 'add "base: VG" with the name of its volume group', "base")
    if bases[0] not in known:
        _unknown(entry, bases[0], "volume group", known)
    _check_name(entry, mapper_name(bases[0], entry.name), entry.name)
    group = next(group for group in groups if group.name == bases[0])
    options = parse_options(entry, "lvcreate")
    kind = entry.text("type") or options.type or "linear"
    if kind in ("thin", "thin-pool") or entry.text("thin-pool"):
        entry.refuse(
            "is thin, which dibble does not write",
            "make it an ordinary logical volume; what is never written takes no space in the image either",
            "type" if entry.text("type") else "thin-pool",
        )
    if kind not in ("linear", "striped"):
        entry.refuse(f'has the type "{kind}"', 'remove "type", or write linear or striped', "type")
    stripes = options.stripes or 1
    if kind == "linear" and stripes > 1 and entry.text("type"):
        entry.refuse(f"is linear, but has {stripes} stripes", 'remove "type", or the stripes', "type")
    if stripes > len(group.pvs):
        reason = f'has {stripes} stripes, but "{group.name}" has {len(group.pvs)} physical volumes'
        entry.refuse(reason, "use at most one stripe for each physical volume", "options")
    stripe = options.stripe or 64 << 10
    if stripe & (stripe - 1) or not 4 << 10 <= stripe <= group.extent:
        reason = f"has stripes of {human(stripe)}"
        entry.refuse(reason, f"write a power of two from 4k to the extent of {human(group.extent)}", "options")
    size, extents, percent, of = _size(entry)
    return LogicalVolume(entry.name, group.name, size, extents, percent, of, stripes, stripe, options.tags, entry.where)


def _size(entry: Entry) -> tuple[int | None, int | None, int | None, str]:
    """Bytes, extents, percent, and of what: one of the three. `size` wins, as in DIB."""
    text = entry.text("size")
    if text is not None:
        return parse_size(text, entry.place_of("size")), None, None, ""
    text = entry.text("extents")
    if text is None:
        entry.refuse('has neither "size" nor "extents"', 'add "size: 2GiB", or "extents: 100%FREE"')
    match = _EXTENTS.fullmatch(text)
    if match is None:
        entry.refuse(f'has "{text}" as "extents"', "write a number of extents, 40%VG, 40%PVS or 100%FREE", "extents")
    number, of = int(match["number"]), (match["of"] or "").upper()
    if of == "ORIGIN":
        entry.refuse("takes its size from an origin, but is no snapshot", "write 40%VG or 100%FREE", "extents")
    if not of:
        return None, number, None, ""
    if not 0 < number <= 100:
        entry.refuse(f'has "{text}" as "extents"', "write a percentage from 1 to 100", "extents")
    return None, None, number, of


def _check_name(entry: Entry, mapped: str, name: str = "") -> None:
    name = name or entry.name
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        hint = "use letters, digits, and + _ . -, no hyphen first; some endings, such as _tmeta, are LVM's own (lvm(8))"
        entry.refuse("has a name that LVM does not take", hint, "name")
    if len(mapped) > _LONGEST:
        reason = f"has a name too long for LVM: with its group's, {len(mapped)} characters of {_LONGEST}"
        entry.refuse(reason, "use shorter names; hyphens count twice", "name")


def _unknown(entry: Entry, name: str, what: str, known: Sequence[str]) -> NoReturn:
    hint = nearest(name, known) or f"known are: {', '.join(known)}"
    entry.refuse(f'has the base "{name}", which is no {what} here', hint, "base")
