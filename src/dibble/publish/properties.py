"""What is known of an image: from its first bytes, and from the build that wrote it, which left a fact in the store."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal

from dibble.errors import BootError, UsageError
from dibble.evidence import image_head
from dibble.publish.base import Properties

if TYPE_CHECKING:
    from pathlib import Path

_MBR_ESP = "ef"
_NAMES = {"vpc": "vhd"}  # QEMU's word → ours
_ARCHIVES = {"tar.gz": b"\x1f\x8b", "tgz": b"\x1f\x8b", "tar.xz": b"\xfd7zXZ\0", "tar.zst": b"\x28\xb5\x2f\xfd"}
"""Packed files that are outputs by themselves, with how they begin."""
_TARS = {".docker": "docker", ".oci": "oci", ".ova": "ova"}
_MAGIC = {"squashfs": (0, b"hsqs"), "erofs": (1024, b"\xe2\xe1\xf5\xe0"), "iso": (0x8001, b"CD001")}
"""Linux, fs/squashfs/squashfs_fs.h and fs/erofs/erofs_fs.h, ECMA-119, 8.1.2: where file systems have their magic
numbers."""
_FOOTER = 512  # of a fixed VHD, at the end; Virtual Hard Disk Image Format Specification 1.0


def properties_of(image: Path, fact: dict[str, Any]) -> Properties:
    """Raises UsageError for a file that is missing or packed. `fact` is what the build left (`store/image_fact.py`)."""
    try:
        head = image_head.read_head(image)
        kind = _format(head, image, str(fact.get("format", "")))
    except BootError as error:
        raise UsageError(error.message, hint=error.hint) from error
    text = {name: str(fact.get(name, "")) for name in ("arch", "disk_bus", "network", "distro", "release")}
    partitions = image_head.partitions_of(head) if kind == "raw" else None
    if partitions and not text["arch"]:
        text["arch"] = image_head.arch_for(partitions) or ""
    firmware = _firmware(partitions) if partitions else _known_firmware(fact)
    size = _virtual_size(image, kind, head)
    memory = fact.get("min_memory_mib", 0)
    return Properties(
        text["arch"], firmware, kind, size, text["disk_bus"], text["network"], text["distro"], text["release"],
        memory if isinstance(memory, int) else 0,
    )  # fmt: skip


def _format(head: bytes, image: Path, known: str) -> str:
    """The name of the output; what the build knows counts most. Raises BootError for a packed disk."""
    if known:
        return known
    packed = next((suffix for suffix in _ARCHIVES if image.name.endswith(f".{suffix}")), "")
    if packed and head.startswith(_ARCHIVES[packed]):
        return packed
    name = image_head.format_of(head, image)
    return _NAMES.get(name, name) if name != "raw" else _unmarked(head, image)


def _unmarked(head: bytes, image: Path) -> str:
    """The format of a file that does not begin with a mark."""
    if _footer(image).startswith(b"conectix"):
        return "vhd"
    if head[0x40:0x44] == b"\x7f\x10\xda\xbe":  # a VDI's signature (QEMU, block/vdi.c)
        return "vdi"
    if head[257:262] == b"ustar":
        return _TARS.get(image.suffix, "tar")
    return next((name for name, (place, magic) in _MAGIC.items() if head.startswith(magic, place)), "raw")


def _footer(image: Path) -> bytes:
    size = image.stat().st_size
    with image.open("rb") as file:
        file.seek(max(0, size - _FOOTER))
        return file.read(_FOOTER)


def _virtual_size(image: Path, kind: str, head: bytes) -> int:
    """Bytes of the disk: qcow2's header has them at 24, a sparse VMDK's in sectors at 12, a VHD's footer at 48, a VDI's
    header at 0x170."""
    if kind == "qcow2":
        return int(struct.unpack_from(">Q", head, 24)[0])
    if kind == "vmdk":
        return int(struct.unpack_from("<Q", head, 12)[0]) * 512
    if kind == "vhd":
        return int(struct.unpack_from(">Q", _footer(image), 48)[0])
    if kind == "vdi":
        return int(struct.unpack_from("<Q", head, 0x170)[0])
    return image.stat().st_size


def _firmware(partitions: image_head.Partitions) -> Literal["bios", "uefi", "both", ""]:
    esp = image_head.ESP in partitions.types or _MBR_ESP in partitions.types
    bios = image_head.BIOS_BOOT in partitions.types or (partitions.table == "mbr" and partitions.boot_code)
    if esp:
        return "both" if bios else "uefi"
    return "bios" if bios else ""


def _known_firmware(fact: dict[str, Any]) -> Literal["bios", "uefi", "both", ""]:
    value = fact.get("firmware")
    return value if value in ("bios", "uefi", "both") else ""
