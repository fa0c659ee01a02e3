"""The partitions of a disk that somebody else has made, read from a plain file.

Sources: UEFI 2.10, 5.2 (MBR) and 5.3 (GPT); for logical partitions the chain of extended boot records as Linux reads it
(block/partitions/msdos.c).
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTOR = 512
_SIGNATURE = b"\x55\xaa"
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MOST_ENTRIES = 1024  # of a GPT; every tool makes 128
_MOST_LOGICAL = 256


@dataclass(frozen=True, slots=True)
class FoundPartition:
    """Bytes `offset` to `offset + size` of the disk. `kind` is a GUID in small letters (GPT) or two hexadecimal digits
    (MBR), `name` that of the GPT."""

    number: int
    offset: int
    size: int
    kind: str
    name: str = ""


def partitions_of(disk: IO[bytes], size: int) -> tuple[FoundPartition, ...]:
    """The partitions in the order of their numbers; none where there is no table. `size` is the disk's, in bytes.

    Entries that reach beyond the disk are left out.
    """
    first = _at(disk, 0, _SECTOR)
    if first[510:512] != _SIGNATURE:
        return ()
    for sector in (512, 4096):
        header = _at(disk, sector, 92)
        if header.startswith(b"EFI PART"):
            found = tuple(_gpt(disk, header, sector))
            break
    else:
        found = tuple(_mbr(disk, first))
    return tuple(part for part in found if part.size > 0 and part.offset > 0 and part.offset + part.size <= size)


def _gpt(disk: IO[bytes], header: bytes, sector: int) -> Iterator[FoundPartition]:
    table, count, length = struct.unpack_from("<QII", header, 72)
    if length < 128:
        return
    for number in range(min(count, _MOST_ENTRIES)):
        entry = _at(disk, table * sector + number * length, 128)
        if len(entry) < 128 or not any(entry[:16]):
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        name = entry[56:128].decode("utf-16-le", "replace").partition("\0")[0]
        kind = str(uuid.UUID(bytes_le=entry[:16]))
        yield FoundPartition(number + 1, first * sector, (last - first + 1) * sector, kind, name)


def _mbr(disk: IO[bytes], first: bytes) -> Iterator[FoundPartition]:
    extended = 0
    for number in range(4):
        kind, start, count = _entry(first, number)
        if kind in _EXTENDED:
            extended = extended or start
        elif kind not in (0, _PROTECTIVE):
            yield FoundPartition(number + 1, start * _SECTOR, count * _SECTOR, f"{kind:02x}")
    record, number = extended, 5
    while record and number < 5 + _MOST_LOGICAL:
        data = _at(disk, record * _SECTOR, _SECTOR)
        if data[510:512] != _SIGNATURE:
            return
        kind, start, count = _entry(data, 0)
        if kind:
            yield FoundPartition(number, (record + start) * _SECTOR, count * _SECTOR, f"{kind:02x}")
            number += 1
        kind, start, _ = _entry(data, 1)
        goal = extended + start if kind in _EXTENDED else 0
        if goal <= record:
            return  # the chain goes on upwards only
        record = goal


def _entry(sector: bytes, number: int) -> tuple[int, int, int]:
    """Type, first sector and number of sectors of an MBR's entry."""
    at = 446 + 16 * number
    start, count = struct.unpack_from("<II", sector, at + 8)
    return sector[at + 4], start, count


def _at(disk: IO[bytes], offset: int, count: int) -> bytes:
    disk.seek(offset)
    return disk.read(count)
