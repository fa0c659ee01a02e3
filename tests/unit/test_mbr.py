from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.partition_tables import DISK_ID, MIB, Sparse, a_partition, a_table, read_mbr, tables

from dibble.disk.tables import mbr
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from dibble.disk.model import Partition, Table

pytestmark = pytest.mark.unit

GIB = 1 << 30
TIB = 1 << 40


def written(table: Table, disk_size: int = GIB) -> Sparse:
    return Sparse(disk_size, mbr.sectors(table, mbr.place(table, disk_size), disk_size, disk_id=DISK_ID))


def ranges(table: Table, disk_size: int = GIB) -> dict[int, tuple[int, int]]:
    """First and last sector by number, as read back from what was written."""
    return {
        found.number: (found.first, found.first + found.length - 1) for found in read_mbr(written(table, disk_size))
    }


def primary(name: str, size: int | str, kind: str = "0x83") -> Partition:
    return a_partition(name, size, kind, primary=True)


def test_no_partition_gives_an_empty_table_with_a_signature() -> None:
    disk = written(a_table("mbr", []))
    assert read_mbr(disk) == []
    assert disk.read(440, 4) == bytes.fromhex("78563412")
    assert disk.read(510, 2) == b"\x55\xaa"


def test_the_boot_code_is_left_alone() -> None:
    table = a_table("mbr", [primary("root", "100%")])
    assert min(offset for offset, _ in mbr.sectors(table, mbr.place(table, GIB), GIB, disk_id=1)) == 440


def test_one_primary_partition_starts_at_1_mib() -> None:
    assert ranges(a_table("mbr", [primary("root", 10 * MIB)])) == {1: (2048, 22527)}


def test_a_root_of_100_percent_leaves_1_mib_at_either_end() -> None:
    extents = mbr.place(a_table("mbr", [primary("root", "100%")]), GIB)
    assert (extents["root"].offset, extents["root"].size) == (MIB, GIB - 2 * MIB)
    assert extents["root"].image == "image0"


def test_three_primary_and_two_logical_partitions_have_the_known_numbers() -> None:
    parts = [*(primary(f"p{n}", 10 * MIB) for n in range(3)), *(a_partition(f"l{n}", 10 * MIB) for n in range(2))]
    assert ranges(a_table("mbr", parts)) == {
        1: (2048, 22527),
        2: (22528, 43007),
        3: (43008, 63487),
        4: (63488, 2097151),
        5: (65536, 86015),
        6: (88064, 108543),
    }


def test_one_logical_partition_alone_stands_in_an_extended_one_over_the_disk() -> None:
    disk = written(a_table("mbr", [a_partition("root", 10 * MIB)]))
    assert [(f.number, f.kind, f.first, f.length) for f in read_mbr(disk)] == [
        (1, "0x0f", 2048, 2097152 - 2048),
        (5, "0x83", 4096, 20480),
    ]


def test_sixty_four_logical_partitions_form_one_chain() -> None:
    found = ranges(a_table("mbr", [a_partition(f"l{n}", 10 * MIB) for n in range(64)]))
    assert found[68] == (4096 + 63 * 22528, 4096 + 63 * 22528 + 20479)
    assert sorted(found) == [1, *range(5, 69)]


def test_three_primary_and_seven_logical_partitions_are_numbered_as_the_kernel_does() -> None:
    parts = [*(primary(f"p{n}", MIB) for n in range(3)), *(a_partition(f"l{n}", MIB) for n in range(7))]
    assert sorted(ranges(a_table("mbr", parts))) == [1, 2, 3, 4, *range(5, 12)]


def test_a_logical_partition_of_100_percent_ends_with_the_disk() -> None:
    assert ranges(a_table("mbr", [primary("boot", 10 * MIB), a_partition("root", "100%")]))[5] == (24576, 2097151)


def test_type_and_boot_flag_are_written() -> None:
    part = a_partition("boot", 10 * MIB, "0x0c", primary=True, bootable=True)
    found = read_mbr(written(a_table("mbr", [part])))
    assert [(entry.kind, entry.bootable) for entry in found] == [("0x0c", True)]


def test_a_length_is_cut_to_whole_sectors_and_the_next_start_is_aligned() -> None:
    assert ranges(a_table("mbr", [primary("a", 1000), primary("b", 1024)])) == {1: (2048, 2048), 2: (4096, 4097)}


def test_percentages_are_of_what_is_left() -> None:
    extents = mbr.place(a_table("mbr", [primary("a", "50%"), primary("b", "50%")]), GIB)
    assert extents["a"].size == (GIB - 2 * MIB) // 2
    assert extents["b"].size == (GIB - extents["b"].offset - MIB) // 2


@pytest.mark.parametrize(
    ("sector", "expected"),
    [
        (0, "000100"),
        (62, "003f00"),
        (63, "010100"),
        (255 * 63, "000101"),
        (2048, "202100"),
        (300 * 255 * 63, "00412c"),  # cylinder 300 = 0x12c: its upper bits go into the sector byte
        (1023 * 255 * 63 + 254 * 63 + 62, "feffff"),
        (1024 * 255 * 63, "feffff"),
        (1 << 31, "feffff"),
    ],
)
def test_cylinder_head_and_sector_are_encoded_as_firmware_reads_them(sector: int, expected: str) -> None:
    assert mbr.chs(sector).hex() == expected


@given(st.integers(0, 1024 * 255 * 63 - 1))
def test_cylinder_head_and_sector_lead_back_to_the_sector_number(sector: int) -> None:
    head, low, high = mbr.chs(sector)
    cylinder = high | (low & 0xC0) << 2
    assert (cylinder * 255 + head) * 63 + (low & 0x3F) - 1 == sector


def test_the_end_of_an_entry_is_its_last_sector_not_the_one_behind() -> None:
    disk = written(a_table("mbr", [primary("a", 10 * MIB)]))
    assert disk.read(446 + 5, 3) == mbr.chs(22527)


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ([primary("root", 2 * GIB)], 'partition "root" takes 2 GiB, but 1023 MiB of the disk are left'),
        ([primary("a", 1023 * MIB), primary("root", MIB)], 'partition "root" takes 1 MiB, but 0 bytes'),
        ([a_partition("root", 1023 * MIB)], 'partition "root" takes 1023 MiB, but 1022 MiB'),
        ([primary("a", "100%"), primary("b", "100%")], 'partition "b" takes'),
        ([primary(f"p{n}", MIB) for n in range(5)], 'partition "p4" is a fifth primary partition'),
        ([*(primary(f"p{n}", MIB) for n in range(4)), a_partition("l", MIB)], 'partition "l" is logical, after four'),
        ([a_partition("l", MIB), primary("p", MIB)], 'partition "p" is primary, but comes after the logical partition'),
        ([primary("p", MIB, "0x183")], "has the type 0x183"),
        ([primary("p", MIB, "0x00")], "has the type 0x00"),
        ([primary("p", MIB, "linux")], "has the type linux"),
        ([primary("p", 511)], "smaller than one sector"),
    ],
)
def test_what_does_not_fit_into_an_mbr_is_refused_at_the_partition(partitions: list[Partition], message: str) -> None:
    with pytest.raises(DiskLayoutError) as caught:
        mbr.place(a_table("mbr", partitions), GIB)
    assert message in caught.value.message
    assert caught.value.hint
    assert (caught.value.where.file, caught.value.where.line) == ("layout.yaml", 7)


def test_a_partition_that_ends_beyond_2_tib_is_refused() -> None:
    table = a_table("mbr", [primary("root", "100%")])
    with pytest.raises(DiskLayoutError, match="an MBR reaches no farther than 2 TiB"):
        mbr.place(table, 3 * TIB)
    assert mbr.place(table, 2 * TIB)["root"].size == 2 * TIB - 2 * MIB


def test_the_extended_partition_on_a_disk_above_2_tib_stays_within_32_bits() -> None:
    found = read_mbr(written(a_table("mbr", [a_partition("root", GIB)]), 3 * TIB))
    assert found[0].first + found[0].length == 1 << 32


def test_an_alignment_that_is_no_multiple_of_a_sector_is_refused() -> None:
    with pytest.raises(DiskLayoutError, match="alignment of 1000 bytes") as caught:
        mbr.place(a_table("mbr", [primary("root", MIB)], align=1000), GIB)
    assert caught.value.where.line == 3


@given(tables("mbr"), st.sampled_from([512, 4096]))
def test_any_table_reads_back_as_it_was_placed(table: Table, sector_size: int) -> None:
    if sector_size == 4096:
        table = dataclasses.replace(table, partitions=tuple(_at_least(part, 4096) for part in table.partitions))
    disk_size = mbr.disk_size_for(table, {}, sector_size)
    extents = mbr.place(table, disk_size, sector_size)
    writes = mbr.sectors(table, extents, disk_size, disk_id=DISK_ID, sector_size=sector_size)
    found = read_mbr(Sparse(disk_size, writes), sector_size)
    data = [entry for entry in found if entry.kind != "0x0f"]
    assert [(e.kind, e.first * sector_size, e.length * sector_size, e.bootable) for e in data] == [
        (part.type, extents[part.name].offset, extents[part.name].size, part.bootable) for part in table.partitions
    ]
    records = sorted((offset, offset + len(content)) for offset, content in writes)
    taken = sorted(records + [(extent.offset, extent.offset + extent.size) for extent in extents.values()])
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(taken)), "two things overlap"
    assert all(extent.offset % table.align == 0 for extent in extents.values())


def _at_least(partition: Partition, size: int) -> Partition:
    return dataclasses.replace(partition, size=max(partition.size, size) if partition.size is not None else None)


@given(tables("mbr"), st.integers(512, 3 * GIB))
def test_the_smallest_disk_holds_what_is_wanted_and_64_kib_less_do_not(table: Table, need: int) -> None:
    last = table.partitions[-1]
    wanted = {last.name: need} if last.size is None else {}
    size = mbr.disk_size_for(table, wanted)
    assert size % 65536 == 0
    assert mbr.place(table, size)[last.name].size >= wanted.get(last.name, 0)
    try:
        smaller = mbr.place(table, size - 65536)
    except DiskLayoutError:
        return
    assert smaller[last.name].size < need


def test_content_that_outgrows_its_fixed_partition_is_refused() -> None:
    with pytest.raises(DiskLayoutError, match='partition "root" has 10 MiB, its content needs 20 MiB') as caught:
        mbr.disk_size_for(a_table("mbr", [primary("root", 10 * MIB)]), {"root": 20 * MIB})
    assert "give it at least 20 MiB" in caught.value.hint
    assert caught.value.where.line == 7


def test_a_partition_after_one_of_100_percent_fits_on_no_disk() -> None:
    with pytest.raises(DiskLayoutError, match='partition "b"'):
        mbr.disk_size_for(a_table("mbr", [primary("a", "100%"), primary("b", 2 * MIB)]), {})
