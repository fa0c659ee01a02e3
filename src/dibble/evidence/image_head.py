"""What the first sectors of an image tell: its format, its partitions, and so how it boots. Reads, starts nothing."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dibble.errors import BootError

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

FirmwareKind = Literal["bios", "uefi", "slof", "u-boot"]
"""SLOF is the Open Firmware of QEMU's Power machines."""

HEAD_SIZE = 1 << 20
"""Bytes of a disk that hold all that is looked at: 34 sectors of 512 or, with sectors of 4096 bytes, 6."""

_FORMATS = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx", b"conectix": "vpc"}
"""How disk formats begin, with QEMU's name (block/qcow2.c, vmdk.c, vhdx.c, vpc.c)."""

_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
}

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"  # UEFI 2.10, 5.3.3
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"  # GRUB manual, "BIOS installation"
_ROOT_OF = {  # the Discoverable Partitions Specification
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "amd64",
    "44479540-f297-41b2-9af7-d131d5f0458a": "i386",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "arm64",
    "69dad710-2ce4-4e3c-b16c-21a1d49abed3": "armhf",
    "c31c45e6-3f39-412e-80fb-4809c4980599": "ppc64el",
    "72ec70a6-cf74-40e6-bd49-4bda08e8f224": "riscv64",
}
_MBR_ESP = 0xEF
_PREP = ("9e1a2d38-c612-4316-aa26-8b49521e5a8b", "41")  # where Power's firmware finds a boot loader
_SECTOR = 512
_LONGEST_CHAIN = 16
_ZIMAGE = (0x016F2818).to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Partitions:
    """`types` in the order of the table: GUIDs in small letters (GPT) or two hexadecimal digits (MBR)."""

    table: Literal["gpt", "mbr", "none"]
    types: tuple[str, ...] = ()
    boot_code: bool = False
    """Whether the first sector has code for a BIOS to run."""


def format_of(head: bytes, image: Path) -> str:
    """QEMU's name of the format, by content; what has no mark is a raw disk. Raises BootError for a packed file."""
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            return name
    for magic, (name, command) in _PACKED.items():
        if head.startswith(magic):
            raise BootError(f"{image} is packed by {name}", hint=f"unpack it first: {command} {image}")
    return "vpc" if _has_footer(image) else "raw"


def _has_footer(image: Path) -> bool:
    """Whether the file ends as a VHD of fixed size does, which is marked nowhere else."""
    with image.open("rb") as file:
        size = file.seek(0, 2)
        if size < _SECTOR:
            return False
        file.seek(size - _SECTOR)
        return file.read(8) == b"conectix"


def is_kernel(head: bytes) -> bool:
    """Whether a file is a Linux kernel that QEMU can start: a bzImage, an Image of arm64 or riscv64, or a zImage of
    32-bit Arm.

    A disk for BIOS has code at the first place and "HdrS" nowhere near. Source: Linux, Documentation/arch/x86/boot.rst
    (0x202), Documentation/arch/arm64/booting.rst (56), Documentation/arch/riscv/boot-image-header.rst (56)
    and arch/arm/boot/compressed/head.S (0x24).
    """
    return head[0x202:0x206] == b"HdrS" or head[56:60] in (b"ARM\x64", b"RSC\x05") or head[0x24:0x28] == _ZIMAGE


def is_cd(head: bytes) -> bool:
    """Whether it is an ISO 9660 image: its first descriptor is in sector 16 of 2048 bytes (ECMA-119, 6.2.1, 8.1.2)."""
    return head[0x8001:0x8006] == b"CD001"


def partitions_of(head: bytes) -> Partitions:
    """The partition table at the beginning of a disk. A damaged one counts as none."""
    if head[510:512] != b"\x55\xaa":
        return Partitions("none")
    boot_code = any(head[:440])
    for sector in (512, 4096):
        if head[sector : sector + 8] == b"EFI PART":
            return Partitions("gpt", _gpt_types(head, sector), boot_code)
    types = [head[446 + 16 * number + 4] for number in range(4)]  # UEFI 2.10, 5.2.1
    return Partitions("mbr", tuple(f"{kind:02x}" for kind in types if kind), boot_code)


def _gpt_types(head: bytes, sector: int) -> tuple[str, ...]:
    """The partition types of a GPT (UEFI 2.10, 5.3.2 and 5.3.3)."""
    first_lba, count, size = struct.unpack_from("<QII", head, sector + 72)
    types = []
    for number in range(min(count, 1024)):
        start = first_lba * sector + number * size
        entry = head[start : start + 16]
        if size < 128 or len(entry) < 16:
            break
        if any(entry):
            types.append(str(uuid.UUID(bytes_le=entry)))
    return tuple(types)


def firmware_for(partitions: Partitions, arch: str) -> FirmwareKind:
    """The firmware that a disk is made for; BIOS where the disk suits both."""
    if arch in ("arm64", "armhf", "riscv64"):
        return "uefi"
    if arch == "ppc64el":
        return "slof"
    if partitions.table == "gpt" and ESP in partitions.types and BIOS_BOOT not in partitions.types:
        return "uefi"
    if partitions.table == "mbr" and f"{_MBR_ESP:02x}" in partitions.types and not partitions.boot_code:
        return "uefi"
    return "bios"


def arch_for(partitions: Partitions) -> str | None:
    """The architecture that the type of a root or boot partition tells; None where nothing does."""
    told = {**_ROOT_OF, **dict.fromkeys(_PREP, "ppc64el")}
    return next((told[kind] for kind in partitions.types if kind in told), None)


def read_head(image: Path) -> bytes:
    """The first bytes of a file. Raises BootError when that cannot be."""
    try:
        with image.open("rb") as file:
            return file.read(HEAD_SIZE)
    except OSError as error:
        raise BootError(f"cannot read the image {image}: {error.strerror}") from error


def disk_head(image: Path, image_format: str, toolbox: Toolbox, scratch: Path) -> bytes:
    """The first bytes of the disk that an image of any format holds. `scratch` is a directory the tools may write."""
    if image_format == "raw":
        return read_head(image)
    out = scratch / "head"
    source, goal = f"if={toolbox.path(image)}", f"of={toolbox.path(out)}"
    toolbox.run(["qemu-img", "dd", "-f", image_format, "-O", "raw", f"bs={HEAD_SIZE}", "count=1", source, goal])
    return read_head(out)


def files_of(image: Path) -> list[Path]:
    """The image and the files that it is based on, each by its absolute name. Raises BootError for a broken chain."""
    files = [image]
    while True:
        name = _backing_name(read_head(files[-1]))
        if not name:
            return files
        if name.startswith("json:") or "://" in name:
            raise BootError(f"{files[-1]} is based on {name}, which is not a file", hint="flatten it: qemu-img convert")
        files.append(files[-1].parent / name.removeprefix("file:"))
        if not files[-1].is_file():
            raise BootError(
                f"{files[-2]} is based on {files[-1]}, which does not exist",
                hint="put it there, or tell the image where it is now: qemu-img rebase -u",
            )
        if len(files) > _LONGEST_CHAIN:
            raise BootError(f"{image} is based on too many files, or on itself", hint="flatten it: qemu-img convert")


def _backing_name(head: bytes) -> str:
    """Empty for an image that stands alone. QEMU, docs/interop/qcow2.rst: offset at byte 8, length at 16."""
    if not head.startswith(b"QFI\xfb") or len(head) < 20:
        return ""
    offset, length = struct.unpack_from(">QI", head, 8)
    return head[offset : offset + length].decode("utf-8", "surrogateescape")
