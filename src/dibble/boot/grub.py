"""GRUB 2 without grub-install: images made by grub-mkimage, written to where the firmware looks for them.

In two parts, because the file systems are filled in between: `install` puts GRUB's own files into the tree and makes
the images, `write_boot_code` puts BIOS code into the written disk. Which files of the tree's own GRUB are used makes
the loader fit its later updates inside the guest.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dibble.boot.base import (
    BIOS_BOOT_TYPES,
    BootFiles,
    boot_image,
    esp_directory,
    filesystem_of,
    is_type,
)
from dibble.disk.sizes import human
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from dibble.disk.model import Filesystem, Graph, Layout, Table
    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox

SECTOR = 512
DIRECTORIES = ("boot/grub", "boot/grub2")
_MODULE_DIRECTORIES = ("usr/lib/grub", "usr/share/grub2")
BIOS_FORMAT = "i386-pc"
EFI_FORMATS = {
    # architecture → GRUB's format, and the loader that firmware starts by itself (UEFI 2.10, table 3.2)
    "amd64": ("x86_64-efi", "BOOTX64.EFI"),
    "arm64": ("arm64-efi", "BOOTAA64.EFI"),
    "i386": ("i386-efi", "BOOTIA32.EFI"),
}
# Enough to read any grub.cfg of a kernel on a plain disk without one more module from /boot.
_MODULES = (
    *("part_msdos", "part_gpt", "search", "search_fs_uuid", "search_label", "normal", "configfile", "linux", "echo"),
    *("serial", "terminal", "test", "ls", "boot", "gzio", "minicmd", "reboot", "halt", "loadenv"),
)
_BIOS_MODULES = ("biosdisk",)
_EFI_MODULES = ("fat", "efifwsetup", "chain", "efi_gop")
_FILESYSTEM_MODULES = {"ext2": "ext2", "ext3": "ext2", "ext4": "ext2", "vfat": "fat", "xfs": "xfs", "btrfs": "btrfs"}

# boot.img (grub-core/boot/i386/pc/boot.S): where things stand in the boot sector.
_KERNEL_SECTOR_AT = 0x5C  # u64, the core image's first sector
_BOOT_DRIVE_AT = 0x64  # u8, 0xff: the drive that the BIOS started
_DRIVE_CHECK_AT = 0x66  # two bytes that jump over a work-around for floppies; NOPs on hard disks
_TABLE_AT = 0x1B8  # disk id and partition table, which belong to the disk
# The core image's first sector ends in where the rest lies (diskboot.S): first sector u64, sectors u16, segment u16.
_BLOCKLIST_AT = 0x1F4
_SEGMENT = 0x0820


def directory_of(root: Path) -> Path | None:
    """The tree's GRUB directory: the one that holds grub.cfg."""
    for name in DIRECTORIES:
        if (root / name / "grub.cfg").is_file():
            return root / name
    return None


def install(  # noqa: PLR0917 - everything that a boot loader can depend on
    graph: Graph, root: Path, arch: str, work: Path, toolbox: Toolbox, events: Events, *, epoch: int
) -> BootFiles:
    """Put GRUB into the tree for each firmware that the disk's layout is made for.

    Nothing is done for a tree without a grub.cfg: it boots in another way, or not at all. On the EFI system partition
    the loader gets the name that firmware starts by itself, and stands beside each `EFI/VENDOR/grub.cfg` too. `work`
    is a directory that the tools see. Raises DiskLayoutError for a layout that GRUB cannot be started from, ToolFailed.
    """
    directory = directory_of(root)
    table = next((table for table in graph.tables if table.base == boot_image(graph)), None)
    if directory is None or table is None:
        return BootFiles()
    path = "/" + str(directory.relative_to(root))
    filesystem = filesystem_of(graph, path)
    if filesystem is None or filesystem.type not in _FILESYSTEM_MODULES:
        kind = filesystem.type if filesystem else "nothing"
        raise DiskLayoutError(
            f"GRUB cannot be started from {path} on {kind}",
            hint=f"put /boot on one of {', '.join(_FILESYSTEM_MODULES)}",
            where=filesystem.where if filesystem else None,
        )
    prefix = _on_filesystem(graph, filesystem, path)
    grub = _Grub(root, directory, work, toolbox, filesystem, prefix, epoch, _volume_modules(graph, filesystem))
    esp = esp_directory(graph, root)
    files = BootFiles()
    if arch in ("amd64", "i386") and (table.label == "mbr" or _core_partition(table)):
        files = grub.install_bios()
    if esp is not None and arch in EFI_FORMATS:
        grub.install_efi(esp, *EFI_FORMATS[arch])
    elif not files.core:
        events.note(f"the disk has no place that firmware of {arch} would start GRUB from", "warning")
    return files


@dataclass(frozen=True, slots=True)
class _Grub:
    """One tree's GRUB: `prefix` is its directory on its own file system, `filesystem`."""

    root: Path
    directory: Path
    work: Path
    toolbox: Toolbox
    filesystem: Filesystem
    prefix: str
    epoch: int
    volume_modules: tuple[str, ...] = ()

    def install_bios(self) -> BootFiles:
        modules = self._modules(BIOS_FORMAT)
        core = self._image(modules, BIOS_FORMAT, _BIOS_MODULES)
        place = self.directory / BIOS_FORMAT
        boot_sector = (modules / "boot.img").read_bytes()
        self._copy_modules(modules, place)
        self._put(place / "boot.img", boot_sector)
        self._put(place / "core.img", core)
        self._clamp([place, self.directory])
        return BootFiles(boot_sector, core)

    def install_efi(self, esp: Path, form: str, loader: str) -> None:
        modules = self._modules(form)
        image = self._image(modules, form, _EFI_MODULES)
        self._copy_modules(modules, self.directory / form)
        esp.mkdir(parents=True, exist_ok=True)
        self._put(esp / "EFI" / "BOOT" / loader, image)
        own = f"grub{loader.removeprefix('BOOT').removesuffix('.EFI').lower()}.efi"
        for config in sorted(esp.glob("EFI/*/grub.cfg")):
            if not config.with_name(own).exists():
                self._put(config.with_name(own), image)
        self._clamp([self.directory / form, self.directory, *esp.rglob("*"), esp])

    def _modules(self, form: str) -> Path:
        """GRUB's files for a platform: the tree's own, or those of the tools."""
        for base in (self.root, self.toolbox.root or Path("/")):
            for name in _MODULE_DIRECTORIES:
                if (base / name / form / "kernel.img").is_file():
                    return base / name / form
        raise DiskLayoutError(
            f"neither the image nor the tools have GRUB for {form}",
            hint="install the distribution's GRUB package for it into the image",
        )

    def _image(self, modules: Path, form: str, platform_modules: Iterable[str]) -> bytes:
        """GRUB with what it needs to find its directory on the file system with a UUID."""
        see = self.toolbox.path
        early = self.work / f"early-{form}.cfg"
        early.write_text(f"search.fs_uuid {_grub_uuid(self.filesystem)} root\nset prefix=($root){self.prefix}\n")
        result = self.work / f"core-{form}.img"
        wanted = [*_MODULES, *platform_modules, *self.volume_modules, _FILESYSTEM_MODULES[self.filesystem.type]]
        present = [name for name in dict.fromkeys(wanted) if (modules / f"{name}.mod").is_file()]
        argv = ["grub-mkimage", "-d", see(modules), "-O", form, "-o", see(result), "-c", see(early)]
        self.toolbox.run([*argv, "-p", self.prefix, *present])
        return result.read_bytes()

    def _copy_modules(self, source: Path, target: Path) -> None:
        """Copy what GRUB loads at run time, as grub-install does."""
        target.mkdir(exist_ok=True)
        target.chmod(0o755)
        for path in sorted(source.iterdir()):
            if path.suffix in (".mod", ".lst") and path.is_file():
                self._put(target / path.name, path.read_bytes())

    def _put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
        os.utime(path, (self.epoch, self.epoch))

    def _clamp(self, paths: Iterable[Path]) -> None:
        """Give directories that changed now the build's time."""
        for path in paths:
            if path.is_dir():
                os.utime(path, (self.epoch, self.epoch))


def _volume_modules(graph: Graph, filesystem: Filesystem) -> tuple[str, ...]:
    """What GRUB needs to read the volumes below a file system."""
    found: list[str] = []
    for volume in graph.volumes_below(filesystem.base):
        modules = volume.grub_modules
        if modules is None:
            raise DiskLayoutError(
                f'GRUB cannot be started from "{filesystem.name}", as it cannot read "{volume.name}" below it',
                hint="give /boot a file system of its own on a plain partition",
                where=filesystem.where,
            )
        found += modules
    return tuple(dict.fromkeys(found))


def _on_filesystem(graph: Graph, filesystem: Filesystem, path: str) -> str:
    """A path of the tree as its own file system has it."""
    point = next(mount.point for mount in graph.mounts if mount.base == filesystem.name)
    own = PurePosixPath("/") / PurePosixPath(path).relative_to(point)
    # On btrfs GRUB begins above all subvolumes, whichever is the default.
    for volume in sorted(filesystem.subvolumes, key=lambda volume: volume.path, reverse=True):
        if own.is_relative_to(volume.path):
            return str(PurePosixPath("/", volume.name) / own.relative_to(volume.path))
    return str(own)


def _core_partition(table: Table) -> str:
    return next((p.name for p in table.partitions if is_type(p, BIOS_BOOT_TYPES)), "")


def _grub_uuid(filesystem: Filesystem) -> str:
    """As GRUB compares it: a FAT volume id has eight digits with a dash."""
    if _FILESYSTEM_MODULES[filesystem.type] == "fat":
        digits = f"{filesystem.uuid.int >> 96:08X}"
        return f"{digits[:4]}-{digits[4:]}"
    return str(filesystem.uuid)


def write_boot_code(layout: Layout, image: Path, files: BootFiles) -> None:
    """Write the boot sector and the core image into the disk `image`, which has its partition table already.

    The core image goes into the BIOS boot partition, else between the table and the first partition. Raises
    DiskLayoutError when there is too little room.
    """
    if not files.core:
        return
    name = boot_image(layout.graph)
    table = next(table for table in layout.graph.tables if table.base == name)
    offset, room = _core_room(layout, table)
    if len(files.core) > room:
        raise DiskLayoutError(
            f"GRUB's core image takes {human(len(files.core))}, but the disk has {human(room)} for it",
            hint="let the first partition begin at 1 MiB, or make the BIOS boot partition larger",
            where=table.where,
        )
    with image.open("r+b") as file:
        _write_core(file, files.core, offset // SECTOR)
        _write_boot_sector(file, files.boot_sector, offset // SECTOR)


def _core_room(layout: Layout, table: Table) -> tuple[int, int]:
    """Offset and size in bytes of the space for the core image."""
    if partition := _core_partition(table):
        extent = layout.extents[partition]
        return extent.offset, extent.size
    first = min(layout.extents[partition.name].offset for partition in table.partitions)
    return SECTOR, first - SECTOR


def _write_core(file: BinaryIO, core: bytes, sector: int) -> None:
    count = -(-len(core) // SECTOR)
    data = bytearray(core.ljust(count * SECTOR, b"\0"))
    struct.pack_into("<QHH", data, _BLOCKLIST_AT, sector + 1, count - 1, _SEGMENT)
    file.seek(sector * SECTOR)
    file.write(data)


def _write_boot_sector(file: BinaryIO, boot_sector: bytes, core_sector: int) -> None:
    data = bytearray(boot_sector)
    struct.pack_into("<Q", data, _KERNEL_SECTOR_AT, core_sector)
    data[_BOOT_DRIVE_AT] = 0xFF
    data[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + 2] = b"\x90\x90"
    file.seek(0)
    present = file.read(SECTOR)
    data[_TABLE_AT:SECTOR] = present[_TABLE_AT:]
    file.seek(0)
    file.write(data[:SECTOR])
