"""The MBR partition table as numbers and bytes (contract.md 5.7): primary partitions, then one extended with a chain.

Corrected against DIB: cylinders, heads and sectors are encoded as firmware reads them (D29), and what does not fit
is refused (D3). Linux, GRUB and firmware since 1996 use the sector numbers only.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dibble.disk.model import Extent
from dibble.disk.sizes import human, round_up
from dibble.disk.tables.space import asked_size, refuse, smallest_disk, too_large
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.disk.model import Partition, Table
    from dibble.disk.sizes import Bytes

HEADS = 255
TRACK = 63
LAST_CYLINDER = 1023
PRIMARIES = 4
FIRST_LOGICAL = 5
EXTENDED = 0x0F
LINK = 0x05
MOST_SECTORS = 1 << 32
"""Sector numbers have 32 bits: 2 TiB with sectors of 512 bytes."""

_ID_AT = 440
_ENTRIES_AT = 446
_SIGNATURE = b"\x55\xaa"


def type_byte(text: str) -> int | None:
    """The type that `0x83` or `83` stands for; None when it is not one byte in hexadecimal digits."""
    digits = text.lower().removeprefix("0x")
    if not digits or len(digits.lstrip("0")) > 2 or any(digit not in "0123456789abcdef" for digit in digits):
        return None
    return int(digits, 16)


def check(table: Table, sector_size: int = 512) -> None:
    """Refuse what no disk of any size can hold. Raises DiskLayoutError at the partition."""
    if table.align <= 0 or table.align % sector_size:
        raise DiskLayoutError(
            f"the alignment of {table.align} bytes is not a multiple of the sector size {sector_size}",
            hint='leave "align" out, or write 1MiB',
            where=table.where,
        )
    logical: Partition | None = None
    primaries = 0
    for partition in table.partitions:
        if not type_byte(partition.type):
            hint = "write one byte in hexadecimal digits, such as 0x83 for Linux"
            refuse(partition, f"has the type {partition.type}, which is not between 0x01 and 0xff", hint)
        if not partition.primary:
            logical = partition
        elif logical:
            refuse(
                partition,
                f'is primary, but comes after the logical partition "{logical.name}"',
                "primary partitions must be given first: move it up, or remove the flag primary",
            )
        primaries += partition.primary
        if primaries + (logical is not None) > PRIMARIES:
            what = "a fifth primary partition" if partition.primary else "logical, after four primary partitions"
            refuse(
                partition,
                f"is {what}; the table has four entries, of which all logical ones take one together",
                'remove the flag primary from the last partitions, or use "label: gpt"',
            )


def place(table: Table, disk_size: int, sector_size: int = 512) -> dict[str, Extent]:
    """Where each partition lies, in bytes, one after another and each start aligned.

    A logical partition stands one alignment behind its link (the extended boot record). A percentage is of what is
    left less one alignment, so that the last primary one ends before the end of the disk, as in DIB. Raises
    DiskLayoutError when the partitions do not fit on the disk or into 32-bit sector numbers.
    """
    check(table, sector_size)
    extents: dict[str, Extent] = {}
    next_free = table.align
    for partition in table.partitions:
        size = asked_size(partition, disk_size - next_free - table.align) // sector_size * sector_size
        start = next_free if partition.primary else next_free + table.align
        if size <= 0 and partition.percent is not None:
            too_large(partition, sector_size, disk_size - start)
        if size <= 0:
            refuse(partition, f"is smaller than one sector of {sector_size} bytes", 'write a size such as "1GiB"')
        if start + size > disk_size:
            too_large(partition, size, disk_size - start)
        if start + size > MOST_SECTORS * sector_size:
            refuse(
                partition,
                f"ends at {human(start + size)}; an MBR reaches no farther than {human(MOST_SECTORS * sector_size)}",
                'use "label: gpt", or make the partition smaller',
            )
        extents[partition.name] = Extent(table.base, start, size)
        next_free = round_up(start + size, table.align)
    return extents


def disk_size_for(table: Table, wanted: Mapping[str, int], sector_size: int = 512) -> Bytes:
    """The smallest disk on which the partitions of `wanted` have at least so many bytes (see `smallest_disk`)."""
    check(table, sector_size)
    return smallest_disk(table, wanted, sector_size, place, MOST_SECTORS * sector_size)


def sectors(
    table: Table, extents: Mapping[str, Extent], disk_size: int, *, disk_id: int, sector_size: int = 512
) -> list[tuple[int, bytes]]:
    """What to write where: offset in bytes and bytes. The boot code before byte 440 of the disk stays as it is."""
    entries: list[bytes] = []
    links: list[tuple[int, bytes]] = []
    logical = [partition for partition in table.partitions if not partition.primary]
    for partition in table.partitions:
        if partition.primary:
            first, count = _sectors_of(extents[partition.name], sector_size)
            entries.append(_entry(partition.bootable, int(partition.type, 16), first, first, count))
    if logical:
        gap = table.align // sector_size
        first = extents[logical[0].name].offset // sector_size - gap
        last = min(disk_size // sector_size, MOST_SECTORS)
        entries.append(_entry(False, EXTENDED, first, first, last - first))
        links = _chain([(partition, extents[partition.name]) for partition in logical], first, gap, sector_size)
    identity = struct.pack("<IH", disk_id, 0)
    return [(_ID_AT, identity + _entries(entries)), *links]


def _chain(
    logical: list[tuple[Partition, Extent]], extended: int, gap: int, sector_size: int
) -> list[tuple[int, bytes]]:
    """One extended boot record before each logical partition: the partition, and where the next record stands."""
    written = []
    places = [_sectors_of(extent, sector_size) for _, extent in logical]
    for index, (partition, _) in enumerate(logical):
        first, count = places[index]
        entries = [_entry(partition.bootable, int(partition.type, 16), gap, first, count)]
        if index + 1 < len(places):
            next_first, next_count = places[index + 1]
            record = next_first - gap
            entries.append(_entry(False, LINK, record - extended, record, next_count + gap))
        written.append(((first - gap) * sector_size, bytes(_ENTRIES_AT) + _entries(entries)))
    return written


def _sectors_of(extent: Extent, sector_size: int) -> tuple[int, int]:
    return extent.offset // sector_size, extent.size // sector_size


def _entries(entries: list[bytes]) -> bytes:
    return b"".join(entries).ljust(PRIMARIES * 16, b"\0") + _SIGNATURE


def _entry(bootable: bool, kind: int, relative: int, first: int, count: int) -> bytes:
    """An entry of 16 bytes. `relative` is the start as written; `first` counts from the start of the disk."""
    flag = b"\x80" if bootable else b"\0"
    ends = chs(first), chs(first + count - 1)
    return flag + ends[0] + bytes([kind]) + ends[1] + struct.pack("<II", relative, count)


def chs(sector: int) -> bytes:
    """Head, sector and cylinder of a sector number, as three bytes; the largest there is for all that lie beyond.

    The upper two of the cylinder's ten bits stand in the sector byte.
    """
    cylinder, rest = divmod(sector, HEADS * TRACK)
    head, number = divmod(rest, TRACK)
    if cylinder > LAST_CYLINDER:
        cylinder, head, number = LAST_CYLINDER, HEADS - 1, TRACK - 1
    return bytes([head, (number + 1) | (cylinder >> 2 & 0xC0), cylinder & 0xFF])
