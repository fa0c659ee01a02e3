"""GRUB 2 without grub-install: images made by grub-mkimage, written to where the firmware looks for them.

`Grub.install` puts GRUB's own files into the tree and makes the images; those that no file system holds, for BIOS and
for Power, are written into the disk later. That files of the tree's own GRUB are used makes the loader fit its later
updates inside the guest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from dibble.boot.base import (
    BIOS_BOOT_TYPES,
    EFI_LOADERS,
    PREP_TYPES,
    boot_image,
    esp_directory,
    filesystem_of,
    is_type,
)
from dibble.boot.kernels import bring_near
from dibble.boot.verity_root import refuse_verity_root
from dibble.disk.sizes import human
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from dibble.boot.base import BootSetup
    from dibble.disk.model import Filesystem, Graph, Layout, Table
    from dibble.sandbox.toolbox import Toolbox

SECTOR = 512
DIRECTORIES = ("boot/grub", "boot/grub2")
_MODULE_DIRECTORIES = ("usr/lib/grub", "usr/share/grub2")
BIOS_FORMAT = "i386-pc"
PREP_FORMAT = "powerpc-ieee1275"
EFI_FORMATS = {
    "amd64": "x86_64-efi",
    "arm64": "arm64-efi",
    "i386": "i386-efi",
    "armhf": "arm-efi",
    "riscv64": "riscv64-efi",
}
_POWER = ("ppc64el", "ppc64", "powerpc")
# Enough to read any grub.cfg of a kernel on a plain disk without one more module from /boot.
MODULES = (
    *("part_msdos", "part_gpt", "search", "search_fs_uuid", "search_label", "normal", "configfile", "linux", "echo"),
    *("serial", "terminal", "test", "ls", "boot", "gzio", "minicmd", "reboot", "halt", "loadenv"),
)
_BIOS_MODULES = ("biosdisk",)
_PREP_MODULES = ("ofnet",)
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


def platform_directory(root: Path, toolbox: Toolbox, form: str) -> Path:
    """GRUB's files for a platform: the tree's own, or those of the tools. Raises DiskLayoutError."""
    for base in (root, toolbox.root or Path("/")):
        for name in _MODULE_DIRECTORIES:
            if (base / name / form / "kernel.img").is_file():
                return base / name / form
    raise DiskLayoutError(
        f"neither the image nor the tools have GRUB for {form}",
        hint="install the distribution's GRUB package for it into the image",
    )


@dataclass(frozen=True, slots=True)
class GrubCode:
    """GRUB's first sector and core image, for BIOS, and the image for a PReP partition."""

    boot_sector: bytes = b""
    core: bytes = b""
    prep: bytes = b""
    last: ClassVar[None] = None

    def write(self, layout: Layout, image: Path) -> None:
        """The core image goes into the BIOS boot partition, else between the table and the first partition.

        Raises DiskLayoutError when there is too little room.
        """
        table = next(table for table in layout.graph.tables if table.base == boot_image(layout.graph))
        if self.core:
            _write_bios(layout, table, image, self)
        if self.prep:
            _write_prep(layout, table, image, self.prep)


class Grub:
    """`BootLoader` for a tree with a grub.cfg."""

    tools: tuple[str, ...] = ()

    def is_set_up(self, root: Path) -> bool:
        return directory_of(root) is not None

    def install(self, setup: BootSetup) -> GrubCode:
        """Put GRUB into the tree for each firmware that the disk's layout is made for.

        On the EFI system partition the loader gets the name that firmware starts by itself, and stands beside each
        `EFI/VENDOR/grub.cfg` too.
        """
        graph, root, arch = setup.graph, setup.root, setup.arch
        directory = directory_of(root)
        table = next((table for table in graph.tables if table.base == boot_image(graph)), None)
        if directory is None or table is None:
            return GrubCode()
        refuse_verity_root(graph, "GRUB")
        path = "/" + str(directory.relative_to(root))
        filesystem = filesystem_of(graph, path)
        if filesystem is None or filesystem.type not in _FILESYSTEM_MODULES:
            kind = filesystem.type if filesystem else "nothing"
            raise DiskLayoutError(
                f"GRUB cannot be started from {path} on {kind}",
                hint=f"put /boot on one of {', '.join(_FILESYSTEM_MODULES)}",
                where=filesystem.where if filesystem else None,
            )
        bring_near(setup)
        prefix = _on_filesystem(graph, filesystem, path)
        grub = _Grub(setup, directory, filesystem, prefix, _volume_modules(graph, filesystem))
        esp = esp_directory(graph, root)
        code = GrubCode()
        if arch in ("amd64", "i386") and (table.label == "mbr" or _core_partition(table)):
            code = grub.install_bios()
        elif arch in _POWER and _prep_partition(table):
            code = grub.install_prep()
        if esp is not None and arch in EFI_FORMATS:
            grub.install_efi(esp, EFI_FORMATS[arch], EFI_LOADERS[arch])
        elif code == GrubCode():
            setup.events.note(f"the disk has no place that firmware of {arch} would start GRUB from", "warning")
        return code


@dataclass(frozen=True, slots=True)
class _Grub:
    """One tree's GRUB: `prefix` is its directory on its own file system, `filesystem`."""

    setup: BootSetup
    directory: Path
    filesystem: Filesystem
    prefix: str
    volume_modules: tuple[str, ...] = ()

    def install_bios(self) -> GrubCode:
        modules = self._modules(BIOS_FORMAT)
        core = self._image(modules, BIOS_FORMAT, _BIOS_MODULES)
        place = self.directory / BIOS_FORMAT
        boot_sector = (modules / "boot.img").read_bytes()
        self._copy_modules(modules, place)
        self.setup.put(place / "boot.img", boot_sector)
        self.setup.put(place / "core.img", core)
        self.setup.clamp([place, self.directory])
        return GrubCode(boot_sector, core)

    def install_prep(self) -> GrubCode:
        modules = self._modules(PREP_FORMAT)
        image = self._image(modules, PREP_FORMAT, _PREP_MODULES)
        place = self.directory / PREP_FORMAT
        self._copy_modules(modules, place)
        self.setup.put(place / "core.elf", image)
        self.setup.clamp([place, self.directory])
        return GrubCode(prep=image)

    def install_efi(self, esp: Path, form: str, loader: str) -> None:
        modules = self._modules(form)
        image = self._image(modules, form, _EFI_MODULES)
        self._copy_modules(modules, self.directory / form)
        esp.mkdir(parents=True, exist_ok=True)
        self.setup.put(esp / "EFI" / "BOOT" / loader, image)
        own = f"grub{loader.removeprefix('BOOT').removesuffix('.EFI').lower()}.efi"
        for config in sorted(esp.glob("EFI/*/grub.cfg")):
            if not config.with_name(own).exists():
                self.setup.put(config.with_name(own), image)
        self.setup.clamp([self.directory / form, self.directory, *esp.rglob("*"), esp])

    def _modules(self, form: str) -> Path:
        return platform_directory(self.setup.root, self.setup.toolbox, form)

    def _image(self, modules: Path, form: str, platform_modules: Iterable[str]) -> bytes:
        """GRUB with what it needs to find its directory on the file system with a UUID."""
        see = self.setup.toolbox.path
        early = self.setup.work / f"early-{form}.cfg"
        early.write_text(f"search.fs_uuid {_grub_uuid(self.filesystem)} root\nset prefix=($root){self.prefix}\n")
        result = self.setup.work / f"core-{form}.img"
        wanted = [*MODULES, *platform_modules, *self.volume_modules, _FILESYSTEM_MODULES[self.filesystem.type]]
        present = [name for name in dict.fromkeys(wanted) if (modules / f"{name}.mod").is_file()]
        argv = ["grub-mkimage", "-d", see(modules), "-O", form, "-o", see(result), "-c", see(early)]
        self.setup.toolbox.run([*argv, "-p", self.prefix, *present])
        return result.read_bytes()

    def _copy_modules(self, source: Path, target: Path) -> None:
        """Copy what GRUB loads at run time, as grub-install does."""
        target.mkdir(exist_ok=True)
        target.chmod(0o755)
        for path in sorted(source.iterdir()):
            if path.suffix in (".mod", ".lst") and path.is_file():
                self.setup.put(target / path.name, path.read_bytes())


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


def _prep_partition(table: Table) -> str:
    return next((p.name for p in table.partitions if is_type(p, PREP_TYPES)), "")


def _grub_uuid(filesystem: Filesystem) -> str:
    """As GRUB compares it: a FAT volume id has eight digits with a dash."""
    if _FILESYSTEM_MODULES[filesystem.type] == "fat":
        digits = f"{filesystem.uuid.int >> 96:08X}"
        return f"{digits[:4]}-{digits[4:]}"
    return str(filesystem.uuid)


def _write_bios(layout: Layout, table: Table, image: Path, code: GrubCode) -> None:
    offset, room = _core_room(layout, table)
    if len(code.core) > room:
        raise DiskLayoutError(
            f"GRUB's core image takes {human(len(code.core))}, but the disk has {human(room)} for it",
            hint="let the first partition begin at 1 MiB, or make the BIOS boot partition larger",
            where=table.where,
        )
    with image.open("r+b") as file:
        _write_core(file, code.core, offset // SECTOR)
        _write_boot_sector(file, code.boot_sector, offset // SECTOR)


def _write_prep(layout: Layout, table: Table, image: Path, program: bytes) -> None:
    extent = layout.extents[_prep_partition(table)]
    if len(program) > extent.size:
        raise DiskLayoutError(
            f"GRUB's image takes {human(len(program))}, but the PReP partition has {human(extent.size)}",
            hint="make the PReP partition larger; 8 MiB are usual",
            where=table.where,
        )
    with image.open("r+b") as file:
        file.seek(extent.offset)
        file.write(program)


def _core_room(layout: Layout, table: Table) -> tuple[int, int]:
    """Offset and size in bytes of the space for the core image."""
    if partition := _core_partition(table):
        extent = layout.extents[partition]
        return extent.offset, extent.size
    for raw in layout.graph.raws:
        if raw.base == table.base:
            raise DiskLayoutError(
                f'GRUB for BIOS and raw "{raw.name}" both want the room in front of the partitions',
                hint="set DIB_BOOTLOADER=none for a board that starts from its own firmware",
                where=raw.where,
            )
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
