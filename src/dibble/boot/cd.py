"""GRUB for a CD and for a USB stick with the same content: what firmware of each kind starts, made by grub-mkimage.

A BIOS starts an image that the El Torito catalogue names, or from a stick the first sector, which loads the same image.
UEFI starts a FAT file system with EFI/BOOT/BOOT*.EFI, which the catalogue and a partition table name. All modules that
are needed are inside: nothing else of GRUB is on the medium but its configuration.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.boot.base import EFI_LOADERS
from dibble.boot.grub import BIOS_FORMAT, EFI_FORMATS, MODULES, platform_directory
from dibble.disk.filesystems.base import Place
from dibble.disk.filesystems.vfat import Vfat
from dibble.disk.model import Extent, Filesystem
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox

_BIOS_ARCHITECTURES = ("amd64", "i386")
_CD_MODULES = ("iso9660", "search_fs_file", "all_video", "gfxterm")
_BIOS_MODULES = ("biosdisk",)
_EFI_MODULES = ("fat", "efi_gop", "efi_uga")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class CdLoader:
    """Files for the medium; None where the architecture has no such firmware. `first_sector` is code for a stick's."""

    bios: Path | None
    first_sector: Path | None
    efi: Path | None


def cd_loader(
    root: Path, arch: str, toolbox: Toolbox, events: Events, *, work: Path, mark: str, epoch: int
) -> CdLoader:
    """GRUB that looks for the medium with the file `mark` (an absolute name) and reads /boot/grub/grub.cfg there.

    The files are made in `work`, which the tools see. Raises DiskLayoutError for an architecture that starts no CD or a
    GRUB that is nowhere, ToolFailed.
    """
    if arch not in EFI_FORMATS:
        known = ", ".join(EFI_FORMATS)
        raise DiskLayoutError(f"no firmware of {arch} starts a CD by itself", hint=f"it does on {known}")
    early = work / "early.cfg"
    early.write_text(f"search.file {mark} root\nset prefix=($root)/boot/grub\n")
    bios = first = None
    if arch in _BIOS_ARCHITECTURES:
        modules = platform_directory(root, toolbox, BIOS_FORMAT)
        bios = _image(f"{BIOS_FORMAT}-eltorito", modules, _BIOS_MODULES, early, toolbox)
        first = work / "first-sector"
        first.write_bytes((modules / "boot_hybrid.img").read_bytes())
    form = EFI_FORMATS[arch]
    program = _image(form, platform_directory(root, toolbox, form), _EFI_MODULES, early, toolbox)
    folder = work / "esp" / "EFI" / "BOOT"
    folder.mkdir(parents=True)
    program.rename(folder / EFI_LOADERS[arch])
    for path in (folder / EFI_LOADERS[arch], folder, folder.parent):
        os.utime(path, (epoch, epoch))
    size = (folder / EFI_LOADERS[arch]).stat().st_size * 9 // 8 + _MIB
    place = Place(work / "efi.img", Extent("efi", 0, size + -size % _MIB), work / "esp", toolbox, events, epoch)
    _write_fat(place)
    return CdLoader(bios, first, place.image)


def _image(form: str, modules: Path, platform_modules: tuple[str, ...], early: Path, toolbox: Toolbox) -> Path:
    result = early.with_name(f"{form}.img")
    wanted = dict.fromkeys((*MODULES, *_CD_MODULES, *platform_modules))
    present = [name for name in wanted if (modules / f"{name}.mod").is_file()]
    argv = ["grub-mkimage", "-d", toolbox.path(modules), "-O", form, "-o", toolbox.path(result)]
    toolbox.run([*argv, "-c", toolbox.path(early), "-p", "/boot/grub", *present])
    return result


def _write_fat(place: Place) -> None:
    with place.image.open("wb") as file:
        file.truncate(place.extent.size)
    identity = uuid.UUID(bytes=hashlib.sha256(b"the EFI file system of a CD").digest()[:16])
    Vfat().write(Filesystem("efi", "efi", "vfat", "EFI", identity), place)
