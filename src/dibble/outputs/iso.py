"""An ISO 9660 image that starts the finished tree as a live system, from a CD or a USB stick, by BIOS and by UEFI.

On it are the tree as squashfs, its newest kernel with its initramfs, and GRUB. The initramfs mounts the squashfs below
a file system in memory, so it must have live-boot (the element `live-boot`), which looks for `/live/*.squashfs`
(live-boot(7)). xorriso(1) writes the image from a directory; nothing is mounted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dibble.boot.kernels import kernels
from dibble.errors import OutputError
from dibble.outputs.base import OutputInfo
from dibble.outputs.place import move
from dibble.outputs.readonly import squashfs_of

if TYPE_CHECKING:
    from dibble.boot.cd import CdLoader
    from dibble.boot.kernels import Kernel
    from dibble.outputs.base import Writing
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

ARGUMENTS = "DIB_BOOT_ISO_KERNEL_CMDLINE_ARGS"
"""More for the kernel's command line; the element `iso` has the same variable."""
_TIMEOUT = "DIB_GRUB_TIMEOUT"
_LIVE_BOOT = "usr/lib/live/boot"  # what live-boot's hook puts into the initramfs
_LABEL_LENGTH = 32  # ECMA-119, 8.4.7: the volume identifier
_CONSOLES = {"arm64": "ttyAMA0", "armhf": "ttyAMA0"}
_ESP_TYPE = "28732ac11ff8d211ba4b00a0c93ec93b"  # C12A7328-F81F-11D2-BA4B-00A0C93EC93B as xorriso takes it (UEFI 2.10)
_DATA_TYPE = "a2a0d0ebe5b9334487c068b6b72699c7"  # EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, basic data


class Iso:
    """`N.iso`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="iso",
        reads="tree",
        summary="a live system on a CD or USB stick, for BIOS and UEFI",
        depends_on=lambda request: (_label(request), *(request.environment.get(k, "") for k in (ARGUMENTS, _TIMEOUT))),
        tools=("iso",),
    )

    def write(self, writing: Writing) -> None:
        from dibble.boot.cd import cd_loader

        root, toolbox, events, epoch = writing.root, writing.toolbox, writing.events, writing.epoch
        kernel, initrd = _kernel(root)
        with events.activity("iso"), tempfile.TemporaryDirectory(dir=writing.work) as name:
            work, top = Path(name), Path(name) / "iso"
            live = top / "live"
            live.mkdir(parents=True)
            shutil.copyfile(kernel.image, live / "vmlinuz")
            shutil.copyfile(initrd, live / "initrd")
            mounts = work / "fstab"  # the image's own names file systems of a disk
            mounts.write_text("# The initial ramdisk mounts the root of a live system.\n")
            squashfs = live / "filesystem.squashfs"
            squashfs_of(root, squashfs, toolbox, events, epoch=epoch, replaced={b"etc/fstab": mounts})
            mark = f"/.disk/id/{_digest(live)}"
            _put(top / mark[1:], "")
            _put(top / "boot/grub/grub.cfg", _configuration(writing.request))
            loader = cd_loader(root, writing.request.arch, toolbox, events, work=work, mark=mark, epoch=epoch)
            if loader.bios:
                loader.bios.rename(top / "boot/grub/eltorito.img")
            made = work / "made"
            argv = [
                *_arguments(loader, toolbox, _label(writing.request), epoch),
                "-o",
                toolbox.path(made),
                toolbox.path(top),
            ]
            _same_attributes(top, epoch)
            toolbox.run(argv, env={"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"})
            move(made, writing.target_file)


def _kernel(root: Path) -> tuple[Kernel, Path]:
    """The newest kernel that has an initramfs, and that. Raises OutputError for a tree that cannot be a live system."""
    found = next(((kernel, kernel.initrd) for kernel in kernels(root) if kernel.initrd), None)
    if found is None:
        raise OutputError(
            "an ISO starts the image's kernel, and the image has no kernel with an initramfs in /boot",
            hint="add the distribution's kernel package (-p linux-image-amd64), or an element that has it",
        )
    if not (root / _LIVE_BOOT).is_dir():
        raise OutputError(
            "an ISO needs an initramfs that mounts its squashfs, and the image has no live-boot",
            hint="add the element live-boot",
        )
    return found


def _arguments(loader: CdLoader, toolbox: Toolbox, label: str, epoch: int) -> list[str]:
    """xorriso's command but for the output and the directory (xorrisofs(1)); every identifier comes from the epoch."""
    moment = datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%d%H%M%S00")
    argv = ["xorriso", "-no_rc", "-report_about", "SORRY", "-as", "mkisofs"]
    argv += ["-V", label, "-iso-level", "3", "-rational-rock", "-pad", f"--modification-date={moment}"]
    argv += ["--gpt_disk_guid", "modification-date", "--set_all_file_dates", "set_to_mtime"]
    argv += ["-partition_offset", "16", "-c", "boot/boot.catalog"]
    if loader.bios and loader.first_sector:
        argv += ["--grub2-mbr", toolbox.path(loader.first_sector), "--mbr-force-bootable", "--protective-msdos-label"]
        argv += ["-b", "boot/grub/eltorito.img", "-no-emul-boot", "-boot-load-size", "4"]
        argv += ["-boot-info-table", "--grub2-boot-info"]
    if loader.efi:
        argv += ["-append_partition", "2", _ESP_TYPE, toolbox.path(loader.efi), "-appended_part_as_gpt"]
        argv += ["-iso_mbr_part_type", _DATA_TYPE]
        argv += ["-eltorito-alt-boot"] if loader.bios else []
        argv += ["-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]
    return argv


def _configuration(request: Request) -> str:
    more = request.environment.get(ARGUMENTS, "")
    console = _CONSOLES.get(request.arch, "ttyS0,115200")
    line = " ".join(f"boot=live console=tty0 console={console} {more}".split())
    title = Path(request.name).name.replace("'", "")
    return f"""\
set timeout={request.environment.get(_TIMEOUT, "") or 5}
# A machine without the port keeps its screen.
if serial --unit=0 --speed=115200; then
    terminal_input console serial
    terminal_output console serial
fi
menuentry '{title}' {{
    linux /live/vmlinuz {line}
    initrd /live/initrd
}}
"""


def _label(request: Request) -> str:
    """The volume's name, of the letters that ECMA-119, 7.4.1 allows there."""
    return re.sub(r"[^A-Z0-9]+", "_", Path(request.name).name.upper()).strip("_")[:_LABEL_LENGTH] or "IMAGE"


def _digest(folder: Path) -> str:
    """Of what is in the files: two images that are plugged in are told apart by it."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:32]


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _same_attributes(top: Path, epoch: int) -> None:
    for path in (*top.rglob("*"), top):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (epoch, epoch))
