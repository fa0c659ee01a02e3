"""Partitions of disks that others have made, and which of them is mounted where."""

from __future__ import annotations

import io
import struct
import uuid

import pytest

from dibble.errors import ReadError
from dibble.read.partitions import FoundPartition, partitions_of
from dibble.read.roles import roles_of
from dibble.read.superblocks import Content, content_at

pytestmark = pytest.mark.unit

MIB = 1 << 20
ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
DATA = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
XBOOTLDR = "bc13c2ff-59e6-4262-a352-b275fd6f7172"


def disk(size: int, pieces: dict[int, bytes]) -> io.BytesIO:
    """A disk with these bytes at these offsets."""
    data = bytearray(size)
    for offset, content in pieces.items():
        data[offset : offset + len(content)] = content
    return io.BytesIO(bytes(data))


def record(*entries: tuple[int, int, int]) -> bytes:
    """A boot record with entries of type, first sector and number of sectors."""
    table = b"".join(struct.pack("<4xB3xII", *entry) for entry in entries)
    return b"\0" * 446 + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(sector: int, entries: list[tuple[str, int, int, str]]) -> dict[int, bytes]:
    header = b"EFI PART" + b"\0" * 64 + struct.pack("<QII", 2, len(entries), 128)
    table = b"".join(
        uuid.UUID(kind).bytes_le
        + b"\1" * 16
        + struct.pack("<QQQ", first, last, 0)
        + name.encode("utf-16-le").ljust(72, b"\0")
        for kind, first, last, name in entries
    )
    return {0: record((0xEE, 1, 1000)), sector: header, 2 * sector: table}


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_is_read_with_sectors_of_both_sizes(sector: int) -> None:
    found = partitions_of(disk(8 * MIB, gpt(sector, [(ESP, 64, 127, "ESP"), (ROOT, 128, 1023, "root ä")])), 8 * MIB)
    assert found == (
        FoundPartition(1, 64 * sector, 64 * sector, ESP, "ESP"),
        FoundPartition(2, 128 * sector, 896 * sector, ROOT, "root ä"),
    )


def test_logical_partitions_count_from_five() -> None:
    pieces = {
        0: record((0x83, 64, 10), (0x0F, 100, 200)),
        100 * 512: record((0x83, 2, 20), (0x05, 50, 50)),
        150 * 512: record((0x82, 2, 30)),
    }
    found = partitions_of(disk(MIB, pieces), MIB)
    assert [(one.number, one.offset // 512, one.size // 512, one.kind) for one in found] == [
        (1, 64, 10, "83"),
        (5, 102, 20, "83"),
        (6, 152, 30, "82"),
    ]


def test_a_chain_of_records_that_leads_back_ends() -> None:
    pieces = {0: record((0x05, 100, 200)), 100 * 512: record((0x83, 2, 20), (0x05, 0, 50))}
    assert len(partitions_of(disk(MIB, pieces), MIB)) == 1


def test_an_entry_beyond_the_disk_is_left_out() -> None:
    assert partitions_of(disk(MIB, {0: record((0x83, 64, 10), (0x83, 2000, 1000))}), MIB)[-1].number == 1
    assert partitions_of(disk(MIB, {}), MIB) == ()


def test_content_is_known_by_its_marks() -> None:
    ext = struct.pack("<56x2s38xI20x16s", b"\x53\xef", 4, b"a-label")
    pieces = {0x400: ext, MIB: b"XFSB", 2 * MIB + 0x10040: b"_BHRfS_M", 3 * MIB: b"LUKS\xba\xbe"}
    found = [content_at(disk(5 * MIB, pieces), number * MIB) for number in range(5)]
    assert found == [Content("ext", "a-label", True), Content("xfs"), Content("btrfs"), Content("LUKS"), Content("")]


def part(number: int, kind: str = DATA, size: int = 100, name: str = "") -> FoundPartition:
    return FoundPartition(number, number * MIB, size * MIB, kind, name)


@pytest.mark.parametrize(
    ("found", "root"),
    [
        ([(part(1), Content("ext")), (part(2, ROOT, 10), Content("ext", "other"))], 2),
        ([(part(1), Content("ext")), (part(2, size=10), Content("ext", "cloudimg-rootfs"))], 2),
        ([(part(1, size=10), Content("ext")), (part(2), Content("ext", "home"))], 2),
        ([(part(1, size=10), Content("ext")), (part(2, "82"), Content("swap"))], 1),
    ],
)
def test_the_root_is_known_by_type_then_label_then_size(found: list[tuple[FoundPartition, Content]], root: int) -> None:
    assert roles_of(found, "x.img")["/"][0].number == root


def test_the_partitions_of_boot_loaders_have_their_places() -> None:
    boot = (part(2, XBOOTLDR, 900), Content("ext", "boot"))
    roles = roles_of([(part(1, ESP), Content("vfat")), boot, (part(3), Content("ext"))], "x.img")
    assert {point: one[0].number for point, one in roles.items()} == {"/": 3, "/boot": 2, "/boot/efi": 1}
    by_label = roles_of([(part(1, size=900), Content("ext", "BOOT")), (part(2), Content("ext"))], "x.img")
    assert {point: one[0].number for point, one in by_label.items()} == {"/": 2, "/boot": 1}


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("f2fs", "its file system is f2fs, which is not read yet"),
        ("LVM", "its volumes are LVM's"),
        ("LUKS", "encrypted"),
    ],
)
def test_a_root_that_cannot_be_read_is_named(kind: str, what: str) -> None:
    with pytest.raises(ReadError, match="cannot be read") as caught:
        roles_of([(part(1), Content(kind))], "x.img")
    assert what in str(caught.value)
    with pytest.raises(ReadError, match="no partition with a root file system"):
        roles_of([(part(1), Content(""))], "x.img")
