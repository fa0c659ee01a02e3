"""The boot loaders' protocol: what one needs to know of a finished tree and its disk, and where it stands in both.

A loader is one file in this directory and one name in `registry.py` ("boot_loaders"), which is what the variable
DIB_BOOTLOADER says. It works in two parts, because the file systems are filled in between: `install` puts files into
the tree, and what it gives back is written into the disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.boot.secure_boot import SigningKey
    from dibble.disk.model import Filesystem, Graph, Layout, Mount, Partition
    from dibble.disk.write import Last
    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox

ESP_TYPES = frozenset({"EF00", "0XEF", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"})
"""EFI system partition: GPT as sgdisk's code, MBR byte, GPT GUID (UEFI 2.10, table 5.7)."""
PREP_TYPES = frozenset({"4100", "0X41", "9E1A2D38-C612-4316-AA26-8B49521E5A8B"})
"""PReP partition, from which Power's Open Firmware starts an ELF image (PowerPC CHRP boot binding, 11.1.1)."""
BIOS_BOOT_TYPES = frozenset({"EF02", "21686148-6449-6E6F-744E-656564454649"})
"""BIOS boot partition of GPT disks, where GRUB keeps its core image."""


EFI_LOADERS = {
    "amd64": "BOOTX64.EFI",
    "arm64": "BOOTAA64.EFI",
    "i386": "BOOTIA32.EFI",
    "armhf": "BOOTARM.EFI",
    "riscv64": "BOOTRISCV64.EFI",
}
"""Architecture → the loader in EFI/BOOT that firmware starts by itself (UEFI 2.10, table 3.2)."""


@dataclass(frozen=True, slots=True)
class BootSetup:
    """All that a boot loader can depend on.

    `root` is the finished tree, which may be written to; `work` an empty directory that the tools see; `epoch` the time
    of every file made.
    """

    graph: Graph
    root: Path
    arch: str
    work: Path
    toolbox: Toolbox
    events: Events
    epoch: int
    signing: SigningKey | None = None
    """What programs for UEFI are signed with."""

    def put(self, path: Path, content: bytes) -> None:
        """Write a file of the tree, in place of one that is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
        os.utime(path, (self.epoch, self.epoch))

    def clamp(self, paths: Iterable[Path]) -> None:
        """Give directories that changed now the build's time."""
        for path in paths:
            if path.is_dir():
                os.utime(path, (self.epoch, self.epoch))


class BootCode(Protocol):
    """What waits to be written: outside of the file systems, or last of them."""

    @property
    def last(self) -> Last | None:
        """A file system with files that can be made only when all others are written; it stands on no volume."""
        ...

    def write(self, layout: Layout, image: Path) -> None:
        """Write it into the disk that boots, which has its partition table already. Raises DiskLayoutError."""
        ...


class NoCode:
    """All is in the file systems."""

    last: ClassVar[None] = None

    def write(self, layout: Layout, image: Path) -> None:
        """Nothing is written."""


class BootLoader(Protocol):
    """One way to start an image."""

    tools: tuple[str, ...]
    """The groups of tools beside `core` that it runs. They are made ready before there is a tree, so a loader that
    has some must be named."""

    def is_set_up(self, root: Path) -> bool:
        """Whether the tree was made ready for it, by the element `bootloader` or another one."""
        ...

    def install(self, setup: BootSetup) -> BootCode:
        """Put the loader into the tree, for each firmware that the disk's layout is made for.

        Raises DiskLayoutError for a layout or a tree that cannot be started so, ToolFailed.
        """
        ...


def is_type(partition: Partition, types: frozenset[str]) -> bool:
    return partition.type.upper() in types


def boot_image(graph: Graph) -> str:
    """The name of the disk that firmware starts from: the one that holds `/`."""
    filesystem = filesystem_of(graph, "/")
    return graph.image_of(filesystem.base) if filesystem else graph.images[0].name


def mount_of(graph: Graph, path: str) -> Mount | None:
    """The mount that an absolute path of the tree is under: the one with the longest mount point."""
    points = {mount.point: mount for mount in graph.mounts if mount.point.startswith("/")}
    parents = (PurePosixPath(path), *PurePosixPath(path).parents)
    return next((points[str(parent)] for parent in parents if str(parent) in points), None)


def filesystem_of(graph: Graph, path: str) -> Filesystem | None:
    """The file system that holds an absolute path of the tree."""
    mount = mount_of(graph, path)
    return next((one for one in graph.filesystems if one.name == mount.base), None) if mount else None


def esp_directory(graph: Graph, root: Path) -> Path | None:
    """The directory of the tree whose content the EFI system partition gets."""
    point = esp_point(graph)
    return root / point.strip("/") if point else None


def esp_point(graph: Graph) -> str:
    """Where the EFI system partition is mounted; empty where there is none, or it is not mounted."""
    for table in graph.tables:
        for partition in table.partitions:
            if not is_type(partition, ESP_TYPES):
                continue
            names = {filesystem.name for filesystem in graph.filesystems if filesystem.base == partition.name}
            for mount in graph.mounts:
                if mount.base in names and mount.point.startswith("/"):
                    return mount.point
    return ""
