"""What a boot loader needs to know of a finished tree and its disk, and where it stands in both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dibble.disk.model import Filesystem, Graph, Partition

ESP_TYPES = frozenset({"EF00", "0XEF", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"})
"""EFI system partition: GPT as sgdisk's code, MBR byte, GPT GUID (UEFI 2.10, table 5.7)."""
BIOS_BOOT_TYPES = frozenset({"EF02", "21686148-6449-6E6F-744E-656564454649"})
"""BIOS boot partition of GPT disks, where GRUB keeps its core image."""


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What waits to be written outside of the file systems: GRUB's first sector and core image, for BIOS."""

    boot_sector: bytes = b""
    core: bytes = b""


def is_type(partition: Partition, types: frozenset[str]) -> bool:
    return partition.type.upper() in types


def boot_image(graph: Graph) -> str:
    """The name of the disk that firmware starts from: the one that holds `/`."""
    filesystem = filesystem_of(graph, "/")
    return graph.image_of(filesystem.base) if filesystem else graph.images[0].name


def filesystem_of(graph: Graph, path: str) -> Filesystem | None:
    """The file system that holds an absolute path of the tree."""
    by_name = {filesystem.name: filesystem for filesystem in graph.filesystems}
    points = {mount.point: mount.base for mount in graph.mounts if mount.point.startswith("/")}
    for parent in (PurePosixPath(path), *PurePosixPath(path).parents):
        if str(parent) in points:
            return by_name[points[str(parent)]]
    return None


def esp_directory(graph: Graph, root: Path) -> Path | None:
    """The directory of the tree whose content the EFI system partition gets."""
    for table in graph.tables:
        for partition in table.partitions:
            if not is_type(partition, ESP_TYPES):
                continue
            names = {filesystem.name for filesystem in graph.filesystems if filesystem.base == partition.name}
            for mount in graph.mounts:
                if mount.base in names and mount.point.startswith("/"):
                    return root / mount.point.strip("/")
    return None
