"""Our partition tables as sfdisk and sgdisk see them."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.partition_tables import DISK_GUID, DISK_ID, MIB, a_partition, a_table, partition_guid

from dibble.disk.tables import gpt, mbr
from dibble.disk.tables.gpt_types import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dibble.disk.model import Table

pytestmark = pytest.mark.contract

GIB = 1 << 30
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def run(*argv: object) -> str:
    program = shutil.which(str(argv[0]), path=PATH)
    if program is None:
        pytest.skip(f"{argv[0]} is not installed")
    done = subprocess.run([program, *map(str, argv[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def image(folder: Path, size: int, writes: Iterable[tuple[int, bytes]]) -> Path:
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.truncate(size)
        for offset, content in writes:
            file.seek(offset)
            file.write(content)
    return path


def mbr_image(folder: Path, table: Table, size: int = GIB) -> Path:
    return image(folder, size, mbr.sectors(table, mbr.place(table, size), size, disk_id=DISK_ID))


def gpt_image(folder: Path, table: Table, size: int = GIB, sector_size: int = 512) -> Path:
    extents = gpt.place(table, size, sector_size)
    writes = gpt.sectors(
        table, extents, size, disk_guid=DISK_GUID, partition_guid=partition_guid, sector_size=sector_size
    )
    return image(folder, size, writes)


def as_sfdisk_reads(path: Path) -> dict[str, Any]:  # JSON
    found: dict[str, Any] = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    return found


MBR_LAYOUTS = {
    "none": [],
    "one": [a_partition("root", "100%", primary=True, bootable=True)],
    "three primary, two logical": [
        *(a_partition(f"p{n}", 10 * MIB, primary=True) for n in range(3)),
        *(a_partition(f"l{n}", 10 * MIB, "0x8e") for n in range(2)),
    ],
    "sixty-four logical": [a_partition(f"l{n}", 10 * MIB) for n in range(63)] + [a_partition("last", "100%")],
}


@pytest.mark.parametrize("name", list(MBR_LAYOUTS))
def test_sfdisk_finds_nothing_wrong_with_an_mbr(name: str, tmp_path: Path) -> None:
    path = mbr_image(tmp_path, a_table("mbr", MBR_LAYOUTS[name]))
    said = run("sfdisk", "--verify", path)
    assert "No errors detected" in said
    assert "overlap" not in said
    assert "does not" not in said


def test_sfdisk_reads_the_known_numbers_of_an_mbr(tmp_path: Path) -> None:
    table = as_sfdisk_reads(mbr_image(tmp_path, a_table("mbr", MBR_LAYOUTS["three primary, two logical"])))
    assert (table["label"], table["id"]) == ("dos", "0x12345678")
    assert [(p["node"].rpartition("raw")[2], p["start"], p["size"], p["type"]) for p in table["partitions"]] == [
        ("1", 2048, 20480, "83"),
        ("2", 22528, 20480, "83"),
        ("3", 43008, 20480, "83"),
        ("4", 63488, 2033664, "f"),
        ("5", 65536, 20480, "8e"),
        ("6", 88064, 20480, "8e"),
    ]


def test_sfdisk_sees_the_boot_flag(tmp_path: Path) -> None:
    table = as_sfdisk_reads(mbr_image(tmp_path, a_table("mbr", MBR_LAYOUTS["one"])))
    assert table["partitions"][0]["bootable"] is True


EFI = [
    a_partition("ESP", 8 * MIB, "EF00"),
    a_partition("a name", 8 * MIB, "EF02"),
    a_partition("root", "100%", "8300", bootable=True),
]


@pytest.mark.parametrize("size", [GIB, GIB + 65536, 3 << 40])
def test_sgdisk_and_sfdisk_find_nothing_wrong_with_a_gpt(size: int, tmp_path: Path) -> None:
    path = gpt_image(tmp_path, a_table("gpt", EFI), size)
    said = run("sgdisk", "-v", path)
    assert "No problems found" in said
    assert "Warning" not in said
    assert "No errors detected" in run("sfdisk", "--verify", path)


def test_sgdisk_takes_the_full_128_partitions(tmp_path: Path) -> None:
    path = gpt_image(tmp_path, a_table("gpt", [a_partition(f"p{n}", MIB, "8300") for n in range(128)]))
    assert "No problems found" in run("sgdisk", "-v", path)
    assert len(as_sfdisk_reads(path)["partitions"]) == 128


def test_sfdisk_reads_names_types_and_guids_of_a_gpt(tmp_path: Path) -> None:
    table = as_sfdisk_reads(gpt_image(tmp_path, a_table("gpt", EFI)))
    assert uuid.UUID(table["id"]) == DISK_GUID
    assert (table["firstlba"], table["lastlba"]) == (34, 2097118)
    assert [(p["name"], p["start"], p["size"], uuid.UUID(p["uuid"])) for p in table["partitions"]] == [
        ("ESP", 2048, 16384, partition_guid("ESP")),
        ("a name", 18432, 16384, partition_guid("a name")),
        ("root", 34816, 2060288, partition_guid("root")),
    ]
    assert [uuid.UUID(p["type"]) for p in table["partitions"]] == [TYPES["EF00"], TYPES["EF02"], TYPES["8300"]]
    assert [p.get("attrs", "") for p in table["partitions"]] == ["", "", "LegacyBIOSBootable"]


def test_fdisk_reads_a_gpt_with_sectors_of_4096_bytes(tmp_path: Path) -> None:
    path = gpt_image(tmp_path, a_table("gpt", EFI), sector_size=4096)
    said = run("fdisk", "--sector-size", 4096, "--list", "--output", "Start,Sectors,Type", path)
    assert "Disklabel type: gpt" in said
    lines = [line.split(maxsplit=2) for line in said.splitlines()[-3:]]
    assert lines == [
        ["256", "2048", "EFI System"],
        ["2304", "2048", "BIOS boot"],
        ["4352", "257536", "Linux filesystem"],
    ]
    assert "corrupt" not in said


def test_sgdisk_would_have_placed_the_partitions_alike(tmp_path: Path) -> None:
    ours = as_sfdisk_reads(gpt_image(tmp_path, a_table("gpt", EFI)))
    path = image(tmp_path, GIB, [])
    run("sgdisk", path, "-n", "1:0:+8M", "-n", "2:0:+8M", "-n", "3:0:+1006M")
    theirs = as_sfdisk_reads(path)
    assert [(p["start"], p["size"]) for p in ours["partitions"]] == [
        (p["start"], p["size"]) for p in theirs["partitions"]
    ]


def test_sgdisk_means_the_same_by_every_code(tmp_path: Path) -> None:
    path = image(tmp_path, 4 * GIB, [])
    numbered = list(enumerate(TYPES.items(), start=1))
    options = [word for number, (code, _) in numbered for word in ("-n", f"{number}:0:+1M", "-t", f"{number}:{code}")]
    run("sgdisk", path, *options)
    found = [uuid.UUID(entry["type"]) for entry in as_sfdisk_reads(path)["partitions"]]
    assert found == [guid for _, (_, guid) in numbered]
