"""The GUID partition table as numbers and bytes (UEFI 2.10, 5.3; contract.md 5.5), and the MBR that guards it."""

from __future__ import annotations

import binascii
import struct
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.disk.model import Extent
from dibble.disk.sizes import MIB, human, round_down, round_up
from dibble.disk.tables.gpt_types import TYPES, type_guid
from dibble.disk.tables.mbr import chs
from dibble.disk.tables.space import asked_size, refuse, smallest_disk, too_large

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from dibble.disk.model import Table
    from dibble.disk.sizes import Bytes

ENTRIES = 128
ENTRY_BYTES = 128
NAME_UNITS = 36
"""A name has room for so many UTF-16 code units."""
RESERVED = MIB
"""Kept free at either end: what sgdisk aligns to, and more than a copy of the table takes."""

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MBR_AT = 440
_PROTECTIVE = 0xEE
_BOOTABLE = 1 << 2  # UEFI 2.10, table 5.8: no firmware of ours asks for it, but U-Boot looks for its menu there
_BEYOND_CHS = b"\xff\xff\xff"  # UEFI 2.10, table 5.4: the end, where three bytes cannot say it


def check(table: Table) -> None:
    """Refuse what no disk of any size can hold. Raises DiskLayoutError at the partition."""
    for number, partition in enumerate(table.partitions, start=1):
        if number > ENTRIES:
            refuse(partition, f"is number {number}; the table has {ENTRIES} entries", "use fewer partitions")
        if type_guid(partition.type) is None:
            near = get_close_matches(partition.type.upper(), TYPES, n=3, cutoff=0.5)
            codes = f"such as {' or '.join(near)}" if near else f"of which there are {', '.join(TYPES)}"
            refuse(
                partition, f"has the unknown type {partition.type}", f"write a GUID, or one of sgdisk's codes, {codes}"
            )
        units = len(partition.name.encode("utf-16-le")) // 2
        if units > NAME_UNITS:
            refuse(partition, f"has a name of {units} characters", f"use at most {NAME_UNITS}")
        if partition.primary:
            refuse(partition, "has the flag primary, which only an MBR knows", 'remove it, or use "label: mbr"')
        if partition.size is not None and partition.size < MIB:
            refuse(
                partition, f"takes {human(partition.size)}, less than 1 MiB", "give it whole MiB; the rest is cut off"
            )


def place(table: Table, disk_size: int, sector_size: int = 512) -> dict[str, Extent]:
    """Where each partition lies, in bytes: one after another from 1 MiB on, sizes cut to whole MiB.

    A percentage is of what is left up to 1 MiB before the end of the disk. Raises DiskLayoutError at the partition
    that does not fit. `sector_size` changes nothing, as all numbers are multiples of 1 MiB.
    """
    check(table)
    extents: dict[str, Extent] = {}
    step = round_up(table.align, MIB)
    next_free = step
    for partition in table.partitions:
        start = next_free
        free = disk_size - RESERVED - start
        size = round_down(asked_size(partition, free), MIB)
        if size <= 0 or size > free:
            too_large(partition, max(size, MIB), free)
        extents[partition.name] = Extent(table.base, start, size)
        next_free = round_up(start + size, step)
    return extents


def disk_size_for(table: Table, wanted: Mapping[str, int], sector_size: int = 512) -> Bytes:
    """The smallest disk on which the partitions of `wanted` have at least so many bytes (see `smallest_disk`)."""
    check(table)
    return smallest_disk(table, wanted, sector_size, place)


def sectors(
    table: Table,
    extents: Mapping[str, Extent],
    disk_size: int,
    *,
    disk_guid: UUID,
    partition_guid: Callable[[str], UUID] | Mapping[str, UUID],
    sector_size: int = 512,
) -> list[tuple[int, bytes]]:
    """What to write where: offset in bytes and bytes. The boot code before byte 440 of the disk stays as it is.

    `partition_guid` gives the GUID of a partition by its name. The backup stands at the end of a disk of `disk_size`
    bytes (whole sectors of it).
    """
    guid_of = partition_guid if callable(partition_guid) else partition_guid.__getitem__
    entries = b""
    for partition in table.partitions:
        extent = extents[partition.name]
        kind = type_guid(partition.type)
        assert kind is not None, "place() has refused unknown types"
        first = extent.offset // sector_size
        last = first + extent.size // sector_size - 1
        name = partition.name.encode("utf-16-le")
        attributes = _BOOTABLE if partition.bootable else 0
        entries += _ENTRY.pack(kind.bytes_le, guid_of(partition.name).bytes_le, first, last, attributes, name)
    entries = entries.ljust(ENTRIES * ENTRY_BYTES, b"\0")
    array = -(-len(entries) // sector_size)
    end = disk_size // sector_size - 1
    usable = (2 + array, end - array - 1)

    def header(own: int, other: int, entries_at: int) -> bytes:
        fields = (own, other, *usable, disk_guid.bytes_le, entries_at, ENTRIES, ENTRY_BYTES, binascii.crc32(entries))
        blank = _HEADER.pack(b"EFI PART", 0x00010000, _HEADER.size, 0, 0, *fields)
        return _HEADER.pack(b"EFI PART", 0x00010000, _HEADER.size, binascii.crc32(blank), 0, *fields)

    return [
        (_MBR_AT, _protective_mbr(end)),
        (sector_size, header(1, end, 2).ljust(sector_size, b"\0")),
        (2 * sector_size, entries),
        ((end - array) * sector_size, entries),
        (end * sector_size, header(end, 1, end - array).ljust(sector_size, b"\0")),
    ]


def _protective_mbr(end: int) -> bytes:
    """One partition over the whole disk, so that programs that know no GPT see that it is not empty."""
    last = chs(end)
    last = _BEYOND_CHS if last == chs(1 << 40) else last
    entry = b"\0" + chs(1) + bytes([_PROTECTIVE]) + last + struct.pack("<II", 1, min(end, 0xFFFFFFFF))
    return bytes(6) + entry.ljust(64, b"\0") + b"\x55\xaa"
