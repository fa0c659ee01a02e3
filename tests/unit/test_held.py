"""A disk that holds something is not taken for blank, and what it holds is named."""

from __future__ import annotations

import pytest

from dibble.publish.held import EDGE, held

pytestmark = pytest.mark.unit

MIB = 1 << 20
SIZE = 16 * MIB
SIGNED = (510, b"\x55\xaa")


def told(*marks: tuple[int, bytes], size: int = SIZE) -> str:
    disk = bytearray(size)
    for offset, mark in marks:
        disk[offset : offset + len(mark)] = mark
    return held(lambda offset, length: bytes(disk[offset : offset + length]), size)


@pytest.mark.parametrize(
    ("offset", "mark", "what"),
    [
        (0, b"LUKS\xba\xbe", "an encrypted container (LUKS)"),
        (0, b"LABELONE", "a physical volume of LVM"),
        (512, b"LABELONE", "a physical volume of LVM"),
        (1536, b"LABELONE", "a physical volume of LVM"),
        (0, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
        (4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
        (4086, b"SWAPSPACE2", "swap space"),
        (0, b"XFSB", "a file system (xfs)"),
        (0x10040, b"_BHRfS_M", "a file system (btrfs)"),
        (1080, b"\x53\xef", "a file system (ext2, ext3 or ext4)"),
        (1024, b"\x10\x20\xf5\xf2", "a file system (f2fs)"),
        (1024, b"\xe2\xe1\xf5\xe0", "a file system (erofs)"),
        (0, b"hsqs", "a file system (squashfs)"),
        (0x8001, b"CD001", "a file system (ISO 9660)"),
        (512, b"EFI PART", "partitions (GPT)"),
        (4096, b"EFI PART", "partitions (GPT)"),
        (*SIGNED, "partitions or a boot sector"),
        (SIZE - 512, b"EFI PART", "the end of a partition table (GPT)"),
        (SIZE - 8192, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
        (EDGE - 1, b"x", "data"),
        (SIZE - 1, b"x", "data"),
    ],
)
def test_what_a_disk_begins_or_ends_with_is_named(offset: int, mark: bytes, what: str) -> None:
    assert told((offset, mark)) == what


def test_a_fat_file_system_is_not_taken_for_a_partition_table() -> None:
    assert told((82, b"FAT32   "), SIGNED) == "a file system (vfat)"
    assert told((54, b"FAT16   "), SIGNED) == "a file system (vfat)"


def test_a_disk_of_zeros_is_blank_whatever_lies_in_its_middle() -> None:
    assert not told()
    assert not told((SIZE // 2, b"x"))
    assert not told(size=1024)
