from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.partition_tables import (
    DISK_GUID,
    MIB,
    Sparse,
    a_partition,
    a_table,
    partition_guid,
    read_gpt,
    tables,
)

from dibble.disk.tables import gpt
from dibble.disk.tables.gpt_types import TYPES, type_guid
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from dibble.disk.model import Partition, Table

pytestmark = pytest.mark.unit

GIB = 1 << 30


def part(name: str, size: int | str, kind: str = "8300") -> Partition:
    return a_partition(name, size, kind)


def written(table: Table, disk_size: int = GIB, sector_size: int = 512) -> Sparse:
    extents = gpt.place(table, disk_size, sector_size)
    writes = gpt.sectors(
        table, extents, disk_size, disk_guid=DISK_GUID, partition_guid=partition_guid, sector_size=sector_size
    )
    return Sparse(disk_size, writes)


def test_the_known_disk_of_1_gib_has_8_8_and_1006_mib() -> None:
    table = a_table("gpt", [part("ESP", 8 * MIB, "EF00"), part("BSP", 8 * MIB, "EF02"), part("root", "100%")])
    extents = gpt.place(table, GIB)
    assert [(e.offset // MIB, e.size // MIB) for e in extents.values()] == [(1, 8), (9, 8), (17, 1006)]
    assert [(e.offset % MIB, e.size % MIB) for e in extents.values()] == [(0, 0)] * 3


def test_sizes_are_cut_to_whole_mib() -> None:
    extents = gpt.place(a_table("gpt", [part("ESP", 550_000_000), part("root", "100%")]), 2 * GIB + 65536)
    assert [(e.offset // MIB, e.size // MIB) for e in extents.values()] == [(1, 524), (525, 1522)]


def test_both_copies_say_the_same() -> None:
    disk = written(a_table("gpt", [part("ESP", 8 * MIB, "EF00"), part("a name", "100%")]))
    primary, guid = read_gpt(disk)
    assert guid == DISK_GUID
    assert [(e.number, e.name, e.guid) for e in primary] == [
        (1, "ESP", partition_guid("ESP")),
        (2, "a name", partition_guid("a name")),
    ]
    assert read_gpt(disk, backup=True) == (primary, guid)


def test_the_guids_of_partitions_may_come_from_a_mapping() -> None:
    table = a_table("gpt", [part("root", "100%")])
    guid = uuid.UUID(int=7)
    writes = gpt.sectors(table, gpt.place(table, GIB), GIB, disk_guid=DISK_GUID, partition_guid={"root": guid})
    assert [entry.guid for entry in read_gpt(Sparse(GIB, writes))[0]] == [guid]


def test_the_protective_mbr_covers_the_disk_and_leaves_the_boot_code_alone() -> None:
    disk = written(a_table("gpt", [part("root", "100%")]))
    assert min(offset for offset, _ in disk.writes) == 440
    entry = bytes.fromhex("00 000200 ee") + disk.read(451, 3) + (1).to_bytes(4, "little")
    assert disk.read(446, 16) == entry + (GIB // 512 - 1).to_bytes(4, "little")
    assert disk.read(462, 48) == bytes(48)
    assert disk.read(510, 2) == b"\x55\xaa"


def test_the_protective_mbr_of_a_huge_disk_is_capped() -> None:
    disk = written(a_table("gpt", [part("root", "100%")]), 8 << 40)
    assert disk.read(451, 3) == b"\xff\xff\xff"
    assert disk.read(458, 4) == b"\xff\xff\xff\xff"


def test_a_disk_with_sectors_of_4096_bytes_counts_in_these() -> None:
    disk = written(a_table("gpt", [part("ESP", 500 * MIB, "EF00"), part("root", "100%")]), sector_size=4096)
    found, _ = read_gpt(disk, 4096)
    assert [(entry.first, entry.length) for entry in found] == [(256, 128000), (128256, 133632)]
    assert read_gpt(disk, 4096, backup=True)[0] == found


def test_a_table_without_partitions_is_valid() -> None:
    assert read_gpt(written(a_table("gpt", []))) == ([], DISK_GUID)


@pytest.mark.parametrize("text", ["EF00", "ef00", "0xEF00", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"])
def test_a_type_is_a_code_or_a_guid_in_any_case(text: str) -> None:
    assert type_guid(text) == uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


def test_no_two_codes_mean_the_same() -> None:
    assert len(set(TYPES.values())) == len(TYPES) > 40


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ([part("root", 2 * GIB)], 'partition "root" takes 2 GiB, but 1022 MiB of the disk are left'),
        ([part("a", "100%"), part("b", "100%")], 'partition "b" takes 1 MiB, but 0 bytes of the disk are left'),
        ([part("a", "100%"), part("b", MIB)], 'partition "b" takes 1 MiB, but 0 bytes'),
        ([part("root", MIB - 1)], "less than 1 MiB"),
        ([part("root", MIB, "ABCD")], "has the unknown type ABCD"),
        ([part("root", MIB, "83")], "has the unknown type 83"),
        ([part("root", MIB, "C12A7328F81F11D2BA4B00A0C93EC93B")], "has the unknown type"),
        ([part("x" * 37, MIB)], "has a name of 37 characters"),
        ([part("\U0001f40b" * 19, MIB)], "has a name of 38 characters"),
        ([a_partition("root", MIB, "8300", primary=True)], "has the flag primary, which only an MBR knows"),
        ([part(f"p{n}", MIB) for n in range(129)], 'partition "p128" is number 129; the table has 128 entries'),
    ],
)
def test_what_does_not_fit_into_a_gpt_is_refused_at_the_partition(partitions: list[Partition], message: str) -> None:
    with pytest.raises(DiskLayoutError) as caught:
        gpt.place(a_table("gpt", partitions), GIB)
    assert message in caught.value.message
    assert caught.value.hint
    assert (caught.value.where.file, caught.value.where.line) == ("layout.yaml", 7)


def test_a_name_of_36_characters_is_kept_whole() -> None:
    found, _ = read_gpt(written(a_table("gpt", [part("x" * 36, MIB)])))
    assert found[0].name == "x" * 36


@given(tables("gpt"), st.sampled_from([512, 4096]), st.integers(0, 100))
def test_any_table_reads_back_as_it_was_placed(table: Table, sector_size: int, more: int) -> None:
    disk_size = gpt.disk_size_for(table, {}, sector_size) + more * 65536
    extents = gpt.place(table, disk_size, sector_size)
    disk = written(table, disk_size, sector_size)
    found, guid = read_gpt(disk, sector_size)
    assert guid == DISK_GUID
    assert read_gpt(disk, sector_size, backup=True) == (found, guid)
    assert [(e.name, e.first * sector_size, e.length * sector_size, e.guid) for e in found] == [
        (p.name, extents[p.name].offset, extents[p.name].size, partition_guid(p.name)) for p in table.partitions
    ]
    assert [uuid.UUID(entry.kind) for entry in found] == [type_guid(p.type) for p in table.partitions]
    assert [entry.bootable for entry in found] == [partition.bootable for partition in table.partitions]
    ends = [0, *(extent.offset + extent.size for extent in extents.values())]
    assert all(extent.offset >= end for extent, end in zip(extents.values(), ends, strict=False))
    assert all(extent.offset % table.align == 0 for extent in extents.values())


@given(tables("gpt"), st.integers(1, 3 * GIB))
def test_the_smallest_disk_holds_what_is_wanted_and_64_kib_less_do_not(table: Table, need: int) -> None:
    last = table.partitions[-1]
    wanted = {last.name: need} if last.size is None else {}
    size = gpt.disk_size_for(table, wanted)
    assert size % 65536 == 0
    assert gpt.place(table, size)[last.name].size >= wanted.get(last.name, 0)
    try:
        smaller = gpt.place(table, size - 65536)
    except DiskLayoutError:
        return
    assert smaller[last.name].size < need


def test_wanted_bytes_hold_for_several_percentages() -> None:
    table = a_table("gpt", [part("var", "57%"), part("root", "100%")])
    wanted = {"var": 700 * MIB, "root": 900 * MIB}
    extents = gpt.place(table, gpt.disk_size_for(table, wanted))
    assert all(extents[name].size >= need for name, need in wanted.items())
    assert extents["root"].size < 901 * MIB


def test_content_that_outgrows_its_fixed_partition_is_refused() -> None:
    with pytest.raises(DiskLayoutError, match='partition "root" has 10 MiB, its content needs 20 MiB') as caught:
        gpt.disk_size_for(a_table("gpt", [part("root", 10 * MIB), part("b", "100%")]), {"root": 20 * MIB})
    assert "give it at least 20 MiB" in caught.value.hint
    assert caught.value.where.line == 7
