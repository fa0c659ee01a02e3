"""`partitioning`: a partition table and its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dibble.disk import model
from dibble.disk.nodes.base import Members, NodeInfo, nearest
from dibble.disk.sizes import MIB, Percent, parse_share, parse_size
from dibble.disk.tables import gpt, mbr
from dibble.disk.tables.gpt_types import TYPES, type_guid
from dibble.disk.tables.mbr import type_byte

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry

FLAGS = ("boot", "primary")
_CODES = {guid: code for code, guid in TYPES.items()}


class Partitioning:
    info = NodeInfo(
        "partitioning",
        level=1,
        keys=("label", "align"),
        members=(Members("partitions", ("size", "type", "flags")),),
    )

    @staticmethod
    def parse(entry: Entry, context: Context) -> model.Table:
        image = context.base(entry, model.Image)
        label = _label(entry)
        if not entry.members:
            entry.refuse('needs "partitions"', "list at least one partition with a name and a size", "partitions")
        align = entry.text("align")
        align_bytes = MIB if align is None else parse_size(align, entry.place_of("align"))
        if align_bytes <= 0 or align_bytes % image.sector_size:
            reason = f'has the alignment "{align}", no multiple of the sector size {image.sector_size}'
            entry.refuse(reason, 'remove "align", or write 1MiB', "align")
        partitions: list[model.Partition] = []
        for member in entry.members:
            partitions.append(_partition(member, label, partitions))
        table = model.Table(entry.name, image.name, label, tuple(partitions), align_bytes, entry.where)
        # What no disk can hold is found here, before hours of building; the rest when the sizes are known.
        if label == "gpt":
            gpt.check(table)
        else:
            mbr.check(table, image.sector_size)
        return table


def _label(entry: Entry) -> Literal["mbr", "gpt"]:
    label = entry.needed("label", "gpt")
    if label == "gpt":
        return "gpt"
    if label == "mbr":
        return "mbr"
    entry.refuse(f'has the label "{label}"', 'write "label: gpt" or "label: mbr"', "label")


def _partition(entry: Entry, label: Literal["mbr", "gpt"], before: list[model.Partition]) -> model.Partition:
    flags = entry.words("flags")
    for flag in flags:
        if flag not in FLAGS:
            known = f"the flags are {' and '.join(FLAGS)}"
            entry.refuse(f'has the unknown flag "{flag}"', nearest(flag, FLAGS) or known, "flags")
    primary = "primary" in flags
    if primary and label == "gpt":
        entry.refuse("has the flag primary, which only an MBR knows", 'remove it, or use "label: mbr"', "flags")
    share = parse_share(entry.needed("size", '10GiB", or "size: 100%'), entry.place_of("size"))
    if label == "gpt":
        number = len(before) + 1
        kind = _gpt_type(entry.text("type") or "8300")
    else:
        alike = sum(1 for partition in before if partition.primary == primary)
        number = alike + (1 if primary else mbr.FIRST_LOGICAL)
        kind = _mbr_type(entry.text("type") or "0x83")
    return model.Partition(
        entry.name,
        number,
        kind,
        size=None if isinstance(share, Percent) else share,
        percent=float(share.share * 100) if isinstance(share, Percent) else None,
        bootable="boot" in flags,
        primary=primary,
        where=entry.where,
    )


def _gpt_type(text: str) -> str:
    """One spelling for each type: sgdisk's code where there is one. What is unknown stays, for the table to refuse."""
    guid = type_guid(text)
    return text if guid is None else _CODES.get(guid, str(guid))


def _mbr_type(text: str) -> str:
    byte = type_byte(text)
    return text if byte is None else f"0x{byte:02x}"
