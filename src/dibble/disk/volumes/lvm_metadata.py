"""LVM2's format on disk: label, metadata area and the text in it (lib/format_text/layout.h and lib/label/label.h of
lvm2; lvm's own reader is `lvm pvck --dump headers|metadata FILE`)."""

from __future__ import annotations

import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.disk.sizes import human
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from uuid import UUID

    from dibble.disk.volumes.lvm import Group, LogicalVolume, Segment

SECTOR = 512
DATA_AT = 1 << 20
"""Where extents begin: what pvcreate aligns to (lvm.conf(5), devices/default_data_alignment), behind the metadata."""
_AREA_AT = 4096  # pvcreate puts the first metadata area behind the first page
_AREA = DATA_AT - _AREA_AT
_TEXT_AT = SECTOR  # of the area; its header takes the first sector
_LABEL_AT = SECTOR  # any of the first four sectors may hold the label; pvcreate takes the second
_LABEL_HEADER = 32  # bytes before the physical volume's own header
_CRC_START = 0xF597A6CF  # INITIAL_CRC, lib/misc/crc.h
_MAGIC = b" LVM2 x[5A%r0N*>"  # FMTT_MAGIC
_IN_USE = 1  # PV_EXT_USED: the physical volume belongs to a group

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # lib/uuid/uuid.c
_PARTS = (6, 4, 4, 4, 4, 4, 6)  # how a UUID's 32 letters are written


@dataclass(frozen=True, slots=True)
class Description:
    """What the text says: of each physical volume (name, UUID, bytes), of each logical one its segments too."""

    group: Group
    pvs: tuple[tuple[str, str, int], ...]
    lvs: tuple[tuple[LogicalVolume, str, list[Segment]], ...]
    uuid: str
    time: int


def derived_uuid(seed: UUID, name: str) -> str:
    """LVM's 32 letters, always the same for a seed and a name."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest())
    letters = []
    for _ in range(sum(_PARTS)):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)


def dashed(uuid: str) -> str:
    parts = []
    for length in _PARTS:
        parts.append(uuid[:length])
        uuid = uuid[length:]
    return "-".join(parts)


def crc(data: bytes) -> int:
    """LVM's checksum: CRC-32 with another start and no final inversion (lib/misc/crc.c)."""
    return binascii.crc32(data, _CRC_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def sectors(uuid: str, size: int, text: str) -> list[tuple[int, bytes]]:
    """What to write where into a physical volume of `size` bytes; without a text it belongs to no group."""
    data = text.encode() + b"\0" if text else b""
    if len(data) > (_AREA - _TEXT_AT) // 2:
        # lvm writes the next version beside this one, so each may take half.
        raise DiskLayoutError(
            f"LVM's description of its volumes takes {human(len(data))}, its place has {human(_AREA // 2)}",
            hint="use fewer volumes and segments",
        )
    area = struct.pack("<16sIQQ", _MAGIC, 1, _AREA_AT, _AREA)
    if data:
        area += struct.pack("<QQII", _TEXT_AT, len(data), crc(data), 0)
    area = area.ljust(SECTOR - 4, b"\0")
    header = struct.pack("<I", crc(area)) + area
    found = [(_LABEL_AT, _label(uuid, size, used=bool(text))), (_AREA_AT, header)]
    return [*found, (_AREA_AT + _TEXT_AT, data)] if data else found


def _label(uuid: str, size: int, *, used: bool) -> bytes:
    end = (0, 0)  # ends a list of areas
    body = struct.pack("<I8s", _LABEL_HEADER, b"LVM2 001")
    body += struct.pack("<32sQ", uuid.encode(), size)
    body += struct.pack("<4Q", DATA_AT, 0, *end) + struct.pack("<4Q", _AREA_AT, _AREA, *end)
    body += struct.pack("<II2Q", 2, _IN_USE if used else 0, *end)  # extension header version 2, no boot loader area
    body = body.ljust(SECTOR - 20, b"\0")
    return struct.pack("<8sQI", b"LABELONE", _LABEL_AT // SECTOR, crc(body)) + body


def text(about: Description) -> str:
    """The group as lvm's text format has it; sizes in sectors."""
    group = about.group
    index = {name: f"pv{number}" for number, (name, _, _) in enumerate(about.pvs)}
    lines = [
        f"{group.name} {{",
        f'id = "{dashed(about.uuid)}"',
        "seqno = 1",
        'format = "lvm2"',
        'status = ["RESIZEABLE", "READ", "WRITE"]',
        "flags = []",
        *_tags(group.tags),
        f"extent_size = {group.extent // SECTOR}",
        "max_lv = 0",
        "max_pv = 0",
        "metadata_copies = 0",
        "",
        "physical_volumes {",
    ]
    for name, uuid, size in about.pvs:
        count = max(0, (size - DATA_AT) // group.extent)
        lines += [
            f"{index[name]} {{",
            f'id = "{dashed(uuid)}"',
            'device = "unknown"',  # a hint only; where the disk will be plugged in nobody knows
            'status = ["ALLOCATABLE"]',
            "flags = []",
            f"dev_size = {size // SECTOR}",
            f"pe_start = {DATA_AT // SECTOR}",
            f"pe_count = {count}",
            "}",
        ]
    lines.append("}")
    if about.lvs:
        lines += ["", "logical_volumes {"]
        for lv, uuid, segments in about.lvs:
            lines += _logical(lv, uuid, segments, index, about.time)
        lines.append("}")
    lines += [
        "}",
        'contents = "Text Format Volume Group"',
        "version = 1",
        'description = "made with the image"',
        'creation_host = "dibble"',
        f"creation_time = {about.time}",
        "",
    ]
    return "\n".join(lines)


def _logical(lv: LogicalVolume, uuid: str, segments: list[Segment], index: dict[str, str], time: int) -> list[str]:
    lines = [
        f"{lv.name} {{",
        f'id = "{dashed(uuid)}"',
        'status = ["READ", "WRITE", "VISIBLE"]',
        "flags = []",
        *_tags(lv.tags),
        f"creation_time = {time}",
        'creation_host = "dibble"',
        f"segment_count = {len(segments)}",
    ]
    for number, segment in enumerate(segments, start=1):
        lines += [
            f"segment{number} {{",
            f"start_extent = {segment.first}",
            f"extent_count = {segment.count}",
            'type = "striped"',  # also a linear one, with one stripe
            f"stripe_count = {len(segment.areas)}",
        ]
        if len(segment.areas) > 1:
            lines.append(f"stripe_size = {lv.stripe // SECTOR}")
        lines += ["stripes = [", ",\n".join(f'"{index[pv]}", {extent}' for pv, extent in segment.areas), "]", "}"]
    return [*lines, "}"]


def _tags(tags: tuple[str, ...]) -> list[str]:
    return ["tags = [" + ", ".join(f'"{tag}"' for tag in tags) + "]"] if tags else []
