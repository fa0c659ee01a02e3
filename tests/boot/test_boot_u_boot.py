"""U-Boot, as the firmware of a board, reads the menu that dibble has written into the disk and starts what it names."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(
        host_arch() != "amd64", reason="the shell of the tree is this machine's, its kernel another one's"
    ),
]

SAID = "Linux version of a few bytes\n"
LAYOUT = """
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - name: something
        size: 1MiB
      - name: boot
        flags: [boot]
        size: 200MiB
        mkfs: {type: BOOT, mount: {mount_point: /boot, fstab: {options: defaults}}}
      - name: root
        size: 200MiB
        mkfs: {type: ext4, mount: {mount_point: /, fstab: {options: defaults}}}
"""
# The element bootloader needs more of a system than this; so its two files are written here as it writes them.
BOARD = """#!/bin/bash
set -eu
mkdir -p "$TARGET_ROOT/boot/extlinux" "$TARGET_ROOT/etc/kernel" "$TARGET_ROOT/usr/lib/linux-image-6.1-board/vendor"
echo "root=LABEL=cloudimg-rootfs ro console=ttyAMA0 quiet" > "$TARGET_ROOT/etc/kernel/cmdline"
printf 'timeout 10\\nmenu title U-Boot menu\\n' > "$TARGET_ROOT/boot/extlinux/extlinux.conf"
base64 --decode <<< {kernel} > "$TARGET_ROOT/boot/vmlinuz-6.1-board"
echo "an initramfs" > "$TARGET_ROOT/boot/initrd.img-6.1-board"
echo "a device tree" > "$TARGET_ROOT/usr/lib/linux-image-6.1-board/vendor/board.dtb"
"""


def kernel_of_arm64(text: str) -> bytes:
    """A kernel image that says a text on the serial line of QEMU's board (PL011 at 0x9000000), and waits.

    Its head is that of Linux, Documentation/arch/arm64/booting.rst.
    """
    code = struct.pack(
        "<8I",
        0xD2A12001,  # movz x1, #0x900, lsl #16
        0x100000E0,  # adr x0, text
        0x38401402,  # next: ldrb w2, [x0], #1
        0x34000062,  # cbz w2, wait
        0x39000022,  # strb w2, [x1]
        0x17FFFFFD,  # b next
        0xD503207F,  # wait: wfi
        0x17FFFFFF,  # b wait
    )
    size = 0x10000
    jump = 0x14000010  # over the head
    head = struct.pack("<IIQQQQQQ4sI", jump, 0, 0, size, 0b1010, 0, 0, 0, b"ARM\x64", 0)
    return (head + code + text.encode() + b"\0").ljust(size, b"\0")


def kernel_of_armhf(text: str) -> bytes:
    """The same as a zImage of 32-bit Arm, with the head that Linux' arch/arm/boot/compressed/head.S gives it."""
    code = struct.pack(
        "<8I",
        0xE3A01409,  # mov r1, #0x9000000
        0xE28F0014,  # adr r0, text
        0xE4D02001,  # next: ldrb r2, [r0], #1
        0xE3520000,  # cmp r2, #0
        0x15C12000,  # strbne r2, [r1]
        0x1AFFFFFB,  # bne next
        0xE320F003,  # wait: wfi
        0xEAFFFFFD,  # b wait
    )
    size = 0x10000
    nothing, jump = 0xE1A00000, 0xEA000003  # over the head
    head = struct.pack("<13I", *[nothing] * 8, jump, 0x016F2818, 0, size, 0x04030201)
    return (head + code + text.encode() + b"\0").ljust(size, b"\0")


KERNELS = {"arm64": kernel_of_arm64, "armhf": kernel_of_armhf}


@pytest.mark.parametrize(("arch", "boot"), [("arm64", "ext4"), ("arm64", "vfat"), ("armhf", "ext4")])
def test_u_boot_starts_the_kernel_that_the_menu_names(ourselves: Person, arch: str, boot: str) -> None:
    place = ourselves.directory(f"boot-u-boot-{arch}-{boot}")
    elements = SmallElements(ourselves, place)
    packed = base64.b64encode(KERNELS[arch](SAID)).decode()
    elements.script("small/root.d/20-board", BOARD.format(kernel=packed), whole=True)
    (place / "layout.yaml").write_text(LAYOUT.replace("BOOT", boot))
    layout, words = f"file://{place}/layout.yaml", ("-n", "-a", arch, "-t", "qcow2", "-o", "board", "small")
    elements.run("build", *words, DIB_BLOCK_DEVICE_CONFIG=layout, DIB_BOOTLOADER="extlinux")
    log = place / "serial.log"
    machine = ("-a", arch, "--firmware", "u-boot")
    expected = ("--marker", SAID.strip(), "--json", "--serial-log", log)
    done = ourselves.dibble("boot", place / "board.qcow2", *machine, *expected, timeout=600)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["ok"], result["arch"], result["firmware"]) == (True, arch, "u-boot")
    said = log.read_text(errors="replace")
    assert "Linux 6.1-board" in said, "the menu has been shown"
    assert "Retrieving file: /vmlinuz-6.1-board" in said
    assert "Retrieving file: /initrd.img-6.1-board" in said
    assert "append: root=LABEL=cloudimg-rootfs ro console=ttyAMA0 quiet" in said
    assert "Starting kernel ..." in said
