"""Tables to test with, and readers of partition tables that share nothing with the writers."""

from __future__ import annotations

import binascii
import struct
import uuid
from typing import TYPE_CHECKING, Literal, NamedTuple

from hypothesis import strategies as st

from dibble.disk.model import Partition, Table
from dibble.errors import Where

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB = 1 << 20
DISK_ID = 0x12345678
DISK_GUID = uuid.UUID("11111111-2222-3333-4444-555555555555")


def partition_guid(name: str) -> uuid.UUID:
    return uuid.uuid5(DISK_GUID, name)


def a_partition(
    name: str, size: int | str, kind: str = "0x83", *, primary: bool = False, bootable: bool = False
) -> Partition:
    """A partition of so many bytes, or of a percentage such as "50%"; its place is line 7 of layout.yaml."""
    where = Where(file="layout.yaml", line=7)
    if isinstance(size, str):
        return Partition(name, 0, kind, None, float(size.rstrip("%")), bootable, primary, where)
    return Partition(name, 0, kind, size, None, bootable, primary, where)


def a_table(label: Literal["mbr", "gpt"], partitions: Iterable[Partition], align: int = MIB) -> Table:
    return Table("table", "image0", label, tuple(partitions), align, Where(file="layout.yaml", line=3))


class Sparse:
    """A disk of which only what was written is kept."""

    def __init__(self, size: int, writes: Iterable[tuple[int, bytes]]) -> None:
        self.size = size
        self.writes = list(writes)
        for offset, content in self.writes:
            assert offset >= 0, "a write before the disk"
            assert offset + len(content) <= size, "a write beyond the disk"

    def read(self, offset: int, count: int) -> bytes:
        found = bytearray(count)
        for start, content in self.writes:
            low, high = max(start, offset), min(start + len(content), offset + count)
            if low < high:
                found[low - offset : high - offset] = content[low - start : high - start]
        return bytes(found)


class Found(NamedTuple):
    """A partition as read: `first` and `length` in sectors from the start of the disk."""

    number: int
    kind: str
    first: int
    length: int
    bootable: bool = False
    name: str = ""
    guid: uuid.UUID | None = None


def read_mbr(disk: Sparse, sector_size: int = 512) -> list[Found]:
    """The partitions of an MBR, the extended one too, found by following the chain as the kernel does."""
    found = []
    extended = 0
    for slot in range(4):
        entry = _mbr_entry(disk, 0, slot)
        if entry.kind in ("0x05", "0x0f"):
            extended = entry.first
        if entry.kind != "0x00":
            found.append(entry._replace(number=slot + 1))
    assert disk.read(510, 2) == b"\x55\xaa"
    number, record, linked = 5, extended, 0
    while record:
        at = record * sector_size
        assert disk.read(at + 510, 2) == b"\x55\xaa", f"no extended boot record at sector {record}"
        entry, link = _mbr_entry(disk, at, 0), _mbr_entry(disk, at, 1)
        found.append(entry._replace(number=number, first=entry.first + record))
        number += 1
        if linked:
            assert record + linked == found[-1].first + found[-1].length, "a link spans what it leads to"
        linked = link.length
        record = extended + link.first if link.kind == "0x05" else 0
    return found


def _mbr_entry(disk: Sparse, at: int, slot: int) -> Found:
    raw = disk.read(at + 446 + 16 * slot, 16)
    first, count = struct.unpack("<II", raw[8:])
    assert raw[0] in (0, 0x80)
    return Found(0, f"0x{raw[4]:02x}", first, count, raw[0] == 0x80)


def read_gpt(disk: Sparse, sector_size: int = 512, *, backup: bool = False) -> tuple[list[Found], uuid.UUID]:
    """The partitions of the primary or the backup table and the disk's GUID, with all checksums and links checked."""
    last = disk.size // sector_size - 1
    own, other = (last, 1) if backup else (1, last)
    raw = disk.read(own * sector_size, sector_size)
    assert raw[:8] == b"EFI PART"
    revision, length, crc, zero = struct.unpack("<IIII", raw[8:24])
    assert (revision, length, zero) == (0x10000, 92, 0)
    assert crc == binascii.crc32(raw[:16] + bytes(4) + raw[20:92])
    assert not any(raw[92:])
    my_lba, other_lba, first_usable, last_usable = struct.unpack("<QQQQ", raw[24:56])
    assert (my_lba, other_lba) == (own, other)
    entries_at, count, entry_length, entries_crc = struct.unpack("<QIII", raw[72:92])
    entries = disk.read(entries_at * sector_size, count * entry_length)
    assert binascii.crc32(entries) == entries_crc
    array = -(-len(entries) // sector_size)
    assert first_usable == 2 + array
    assert last_usable == last - array - 1
    assert entries_at == (last - array if backup else 2)
    found = []
    for number in range(count):
        entry = entries[number * entry_length : (number + 1) * entry_length]
        if any(entry):
            first, final, attributes = struct.unpack("<QQQ", entry[32:56])
            assert attributes in (0, 4), "UEFI 2.10, table 5.8: none, or legacy BIOS bootable"
            assert first_usable <= first <= final <= last_usable
            name = entry[56:].decode("utf-16-le").rstrip("\0")
            kind = str(uuid.UUID(bytes_le=entry[:16]))
            guid = uuid.UUID(bytes_le=entry[16:32])
            found.append(Found(number + 1, kind, first, final - first + 1, attributes == 4, name, guid))
    return found, uuid.UUID(bytes_le=raw[56:72])


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=18)
mbr_types = (
    st.integers(1, 255).filter(lambda kind: kind not in (0x05, 0x0F, 0x85, 0xEE)).map(lambda kind: f"0x{kind:02x}")
)
gpt_types = st.sampled_from(["8300", "EF00", "ef02", "8200", "0x8e00", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"])


@st.composite
def tables(draw: st.DrawFn, label: Literal["mbr", "gpt"]) -> Table:
    """Tables that are right by themselves: fixed sizes, and perhaps one last partition that takes what is left."""
    primaries = draw(st.integers(0, 3)) if label == "mbr" else 0
    count = draw(st.integers(1, 12))
    all_names = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    least = MIB if label == "gpt" else 512
    kinds = gpt_types if label == "gpt" else mbr_types
    partitions = [
        a_partition(
            name,
            "100%" if index == count - 1 and draw(st.booleans()) else draw(st.integers(least, 40 * MIB)),
            draw(kinds),
            primary=index < primaries,
            bootable=draw(st.booleans()),
        )
        for index, name in enumerate(all_names)
    ]
    return a_table(label, partitions, draw(st.sampled_from([MIB, 4 * MIB])))
