"""The Open Firmware of a Power machine starts GRUB from the PReP partition, and GRUB the kernel that its menu names."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements
from tests.standins.debs import files_of

from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.tools import host_arch
from dibble.store.places import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the shell of the tree is this machine's, its kernel Power's"),
]

SAID = "A kernel of a few bytes runs."
# The element bootloader needs more of a system than this; so the menu is written here.
SYSTEM = """#!/bin/bash
set -eu
mkdir -p "$TARGET_ROOT/boot/grub"
cp -r {grub} "$TARGET_ROOT/usr/lib/grub"
base64 --decode <<< {kernel} > "$TARGET_ROOT/boot/vmlinux-power"
cat > "$TARGET_ROOT/boot/grub/grub.cfg" << 'END'
set timeout=0
menuentry power {{
    echo "The menu on $root is read."
    linux /boot/vmlinux-power root=LABEL=cloudimg-rootfs
}}
END
"""


def kernel(text: str) -> bytes:
    """A kernel for Power that says a text on the console of the hypervisor, and waits.

    It is an ELF file as Linux' vmlinux: for addresses from 0xc000000000000000, though it starts wherever GRUB puts it,
    and little endian, though the machine begins big endian. H_PUT_TERM_CHAR (Linux on Power Architecture Reference,
    14.9) takes up to 16 bytes in registers.
    """
    words = text.encode() + b"\n"
    words = words.ljust(-(-len(words) // 8) * 8, b"\n") + bytes(8)
    code = struct.pack(">I", 0x48000001 | 4 + len(words))  # bl over the text, whose address is then in lr
    code += words
    code += struct.pack(
        ">11I",
        0x7FE802A6,  # mflr r31
        0xE8DF0000,  # next: ld r6, 0(r31)
        0x2C260000,  # cmpdi r6, 0
        0x4182001C,  # beq wait
        0x38600058,  # li r3, H_PUT_TERM_CHAR
        0x38800000,  # li r4, 0: the first console
        0x38A00008,  # li r5, 8: bytes
        0x44000022,  # sc 1
        0x3BFF0008,  # addi r31, r31, 8
        0x4BFFFFE0,  # b next
        0x48000000,  # wait: b wait
    )
    address, page = 0xC000000000000000, 0x10000
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 21, 1, address, 64, 0, 2, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, page, address, 0, len(code), len(code), page)
    return (head + segment).ljust(page, b"\0") + code


@pytest.fixture(scope="module")
def grub(ourselves: Person) -> Path:
    """GRUB's modules for Power, out of Debian's package for ppc64el, in the store."""

    def inside() -> Path:
        return files_of(open_store(ourselves.cache), "ppc64el", "grub-ieee1275-bin", "bookworm")

    return run_in_namespace(inside) / "usr/lib/grub"


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_open_firmware_starts_grub_and_that_the_kernel(ourselves: Person, grub: Path, table: str) -> None:
    place = ourselves.directory(f"boot-power-{table}")
    elements = SmallElements(ourselves, place)
    packed = base64.b64encode(kernel(SAID)).decode()
    elements.script("small/root.d/20-power", SYSTEM.format(grub=grub, kernel=packed), whole=True)
    words = ("-n", "-a", "ppc64el", "-t", "qcow2", "-o", "power", "small", f"block-device-{table}")
    elements.run("build", *words, DIB_BOOTLOADER="grub")
    log = place / "serial.log"
    expected = ("--marker", SAID, "--json", "--serial-log", log)
    done = ourselves.dibble("boot", place / "power.qcow2", *expected, timeout=600)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["ok"], result["arch"], result["firmware"]) == (True, "ppc64el", "slof")
    assert "is read." in log.read_text(errors="replace"), "the menu says so"


def test_a_disk_with_nothing_in_its_prep_partition_is_told_at_once(ourselves: Person) -> None:
    image = ourselves.directory("boot-power-empty") / "empty.img"
    prep = struct.pack("<B3sB3sII", 0x80, b"", 0x41, b"", 2048, 16384)
    image.write_bytes((bytes(446) + prep).ljust(510, b"\0") + b"\x55\xaa" + bytes(10 << 20))
    done = ourselves.dibble("boot", image, "--timeout", "600", check=False)
    assert done.returncode == 1
    assert "the Open Firmware finds nothing to boot on the disk" in done.stderr
