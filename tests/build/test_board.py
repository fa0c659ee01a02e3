"""An element for a board, as somebody writes one: own layout of the disk, firmware files and kernel, no boot loader."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

MIB = 1 << 20
SECTOR = 512
BOOT_CODE = 440  # bytes of a master boot record in front of the disk's signature

LAYOUT = """
- local_loop:
    name: image0
- partitioning:
    base: image0
    label: mbr
    partitions:
      - name: firmware
        flags: [boot, primary]
        type: '0x0c'
        size: 192MiB
        mkfs:
          type: vfat
          label: FIRMWARE
          mount:
            mount_point: /boot/firmware
            fstab:
              options: "defaults,umask=0077"
              fsck-passno: 2
      - name: root
        flags: [primary]
        type: '0x83'
        size: 100%
        mkfs:
          type: ext4
          label: board-root
          mount:
            mount_point: /
            fstab:
              options: "defaults,noatime"
              fsck-passno: 1
- raw: {name: spl, base: image0, file: /usr/lib/board/spl.bin, offset: 8KiB}
"""
"""The layout of a Raspberry Pi: its firmware reads a FAT file system on the first partition of an MBR. Other boards
load their first program from a fixed place, as Allwinner's do from 8 KiB on."""

CONFIG = "kernel=kernel8.img\ninitramfs initramfs8 followkernel\nenable_uart=1\n"
START = bytes(range(256)) * 4099  # a megabyte and a bit: ends within a cluster
FIRST = START[: 600 << 10]
KERNEL = """
newest() {
    local found
    found=$(find /boot -maxdepth 1 -name "$1-*" | sort -V | tail -n 1)
    [ -n "$found" ] || { echo "board: there is no $1 in /boot" >&2; exit 1; }
    echo "$found"
}
cp "$(newest vmlinuz)" /boot/firmware/kernel8.img
cp "$(newest initrd.img)" /boot/firmware/initramfs8
echo "console=serial0,115200 root=LABEL=$DIB_ROOT_LABEL rootwait rw" > /boot/firmware/cmdline.txt
"""


@dataclass(frozen=True)
class Card:
    """The image for the board, and what sfdisk says of its partitions."""

    image: Path
    partitions: list[dict[str, Any]]

    def offset(self, number: int) -> int:
        return int(self.partitions[number]["start"]) * SECTOR

    def part(self, number: int) -> Path:
        """A partition as a file of its own."""
        path = self.image.with_name(f"part-{number}")
        if not path.exists():
            size = int(self.partitions[number]["size"]) * SECTOR
            with self.image.open("rb") as source, path.open("wb") as target:
                source.seek(self.offset(number))
                for begin in range(0, size, MIB):
                    target.write(source.read(min(MIB, size - begin)))
        return path

    def about(self, number: int) -> dict[str, str]:
        """What blkid finds in a partition."""
        lines = command("blkid", "--probe", "--output", "export", self.part(number)).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def firmware(self, name: str) -> bytes:
        """A file of the FAT file system."""
        return command("mtype", "-i", self.part(0), f"::/{name}")

    def root(self, name: str) -> bytes:
        """A file of the root file system."""
        return command("debugfs", "-R", f"cat /{name}", f"{self.image}?offset={self.offset(1)}")

    def listing(self, name: str) -> list[str]:
        """The names in a directory of the root file system."""
        told = command("debugfs", "-R", f"ls -p /{name}", f"{self.image}?offset={self.offset(1)}").decode()
        return [line.split("/")[5] for line in told.splitlines() if line.startswith("/")]


def command(*argv: str | Path) -> bytes:
    return subprocess.run(list(map(str, argv)), check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def card(ordinary_user: Person) -> Card:
    elements = SmallElements(ordinary_user, ordinary_user.directory("board"))
    elements.write("board/README.rst", "=====\nboard\n=====\nStarts from a card, by the firmware of the board.\n")
    elements.write("board/element-deps", "install-static\npackage-installs\n")
    elements.write("board/element-provides", "block-device\n")
    elements.write("board/block-device-default.yaml", LAYOUT)
    elements.write("board/environment.d/10-board.bash", "export BOARD_MODEL=${BOARD_MODEL:-4-b}\n")
    elements.write("board/static/boot/firmware/config.txt", CONFIG)
    elements.write("board/static/boot/firmware/bcm2711-rpi-4-b.dtb", "a device tree\n")
    elements.write("board/static/boot/firmware/overlays/disable-bt.dtbo", "an overlay of a device tree\n")
    elements.write("board/static/boot/firmware/start4.elf", "").write_bytes(START)
    elements.write("board/static/usr/lib/board/spl.bin", "").write_bytes(FIRST)
    elements.script("board/finalise.d/60-board-kernel", KERNEL)
    elements.script("board/install.d/50-board", 'echo "$BOARD_MODEL" > /etc/board-model')
    env = elements.environment(DIB_RELEASE="trixie")
    words = ("build", "-t", "raw", "-o", "card", "debian-minimal", "board")
    ordinary_user.dibble(*words, cwd=elements.place, env=env, timeout=1800)
    image = elements.place / "card.raw"
    table = json.loads(command("sfdisk", "--json", image))["partitiontable"]
    assert table["label"] == "dos"
    return Card(image, table["partitions"])


def test_the_disk_is_divided_as_the_element_says(card: Card) -> None:
    assert [entry["type"] for entry in card.partitions] == ["c", "83"]
    assert [entry.get("bootable", False) for entry in card.partitions] == [True, False]
    assert card.partitions[0]["size"] * SECTOR == 192 * MIB


def test_file_systems_have_the_labels_of_the_element_and_are_clean(card: Card) -> None:
    assert (card.about(0)["TYPE"], card.about(0)["LABEL"]) == ("vfat", "FIRMWARE")
    assert (card.about(1)["TYPE"], card.about(1)["LABEL"]) == ("ext4", "board-root")
    command("fsck.vfat", "-n", card.part(0))
    command("e2fsck", "-f", "-n", card.part(1))


def test_the_firmware_finds_its_files_on_the_first_partition(card: Card) -> None:
    assert card.firmware("config.txt").decode() == CONFIG
    assert card.firmware("start4.elf") == START
    assert card.firmware("bcm2711-rpi-4-b.dtb") == b"a device tree\n"
    assert card.firmware("overlays/disable-bt.dtbo") == b"an overlay of a device tree\n"


def test_the_kernel_and_its_initramfs_stand_beside_the_firmware(card: Card) -> None:
    kernels = [name for name in card.listing("boot") if name.startswith("vmlinuz-")]
    initramfs = [name for name in card.listing("boot") if name.startswith("initrd.img-")]
    assert card.firmware("kernel8.img") == card.root(f"boot/{kernels[-1]}")
    assert card.firmware("initramfs8") == card.root(f"boot/{initramfs[-1]}")
    assert len(card.firmware("kernel8.img")) > MIB


def test_the_kernel_finds_the_root_by_its_label(card: Card) -> None:
    assert card.firmware("cmdline.txt").split()[1] == b"root=LABEL=board-root"


def test_both_file_systems_are_in_fstab(card: Card) -> None:
    entries = [line.split() for line in card.root("etc/fstab").decode().splitlines() if line and line[0] != "#"]
    assert ["LABEL=board-root", "/", "ext4", "defaults,noatime", "0", "1"] in entries
    assert ["LABEL=FIRMWARE", "/boot/firmware", "vfat", "defaults,umask=0077", "0", "2"] in entries


def test_the_files_of_the_firmware_are_not_in_the_root_as_well(card: Card) -> None:
    assert set(card.listing("boot/firmware")) <= {".", ".."}
    assert card.root("etc/board-model") == b"4-b\n"


def test_the_first_program_stands_at_its_place_in_front_of_the_partitions(card: Card) -> None:
    with card.image.open("rb") as file:
        file.seek(8 << 10)
        assert file.read(len(FIRST)) == FIRST
        assert not file.read(card.offset(0) - file.tell()).strip(b"\0")


def test_no_boot_loader_is_installed(card: Card) -> None:
    with card.image.open("rb") as file:
        assert file.read(BOOT_CODE) == bytes(BOOT_CODE)
    assert "grub" not in card.listing("boot")
    assert not re.search(r"^Package: grub", card.root("var/lib/dpkg/status").decode(), re.M)
