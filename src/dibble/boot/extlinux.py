"""A menu for U-Boot, which boards have as their firmware: `extlinux/extlinux.conf` with an entry for each kernel.

U-Boot's "generic distro boot" looks for that file in `/` and `/boot` of each file system that it can read, reads
kernel, initramfs and device tree by the paths in it, and starts the kernel with the command line in it (U-Boot,
doc/develop/distro.rst and doc/README.pxe). No code is written into the disk: U-Boot itself is in the board's flash, or
where its processor looks for it, which the node `raw` fills.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from dibble.boot.base import NoCode, filesystem_of
from dibble.boot.kernels import COMMAND_LINE, bring_near, kernels
from dibble.boot.verity_root import refuse_verity_root
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.boot.base import BootSetup
    from dibble.boot.kernels import Kernel
    from dibble.disk.model import Filesystem, Graph

_ENTRY = re.compile(r"^\s*label\s", re.IGNORECASE | re.MULTILINE)
MENU = "boot/extlinux/extlinux.conf"
_READABLE = ("ext2", "ext3", "ext4", "vfat")
"""What U-Boot reads wherever distro boot is on (its Kconfig, DISTRO_DEFAULTS)."""
# Where distributions keep a kernel's device trees, by its release; in /boot they are copied there.
_TREES = ("usr/lib/linux-image-{}", "usr/lib/modules/{}/dtb", "lib/firmware/{}/device-tree")
_TREES_IN_BOOT = ("boot/dtbs/{}", "boot/dtb-{}")


class Extlinux:
    """`BootLoader` for a tree with a kernel, the command line for it, and the head of a menu.

    A menu that has entries is of somebody who wants them so, and is left alone.
    """

    tools: tuple[str, ...] = ()

    def is_set_up(self, root: Path) -> bool:
        menu = root / MENU
        if not menu.is_file() or not (root / COMMAND_LINE).is_file():
            return False
        return not _ENTRY.search(menu.read_text("utf-8", "replace")) and bool(kernels(root))

    def install(self, setup: BootSetup) -> NoCode:
        """Write the menu's entries, newest kernel first, and put device trees where U-Boot can read them.

        Raises DiskLayoutError where U-Boot cannot read the file system of /boot.
        """
        refuse_verity_root(setup.graph, "U-Boot's menu")
        filesystem = filesystem_of(setup.graph, "/boot")
        _check(setup, filesystem)
        apart = filesystem is not filesystem_of(setup.graph, "/")
        line = " ".join((setup.root / COMMAND_LINE).read_text("utf-8").split())
        bring_near(setup)
        found = kernels(setup.root)
        menu = setup.root / MENU
        text = [*menu.read_text("utf-8").splitlines(), f"default {_label(found[0])}"]
        for kernel in found:
            text += ["", f"label {_label(kernel)}", f"\tmenu label Linux {kernel.release}"]
            text.append(f"\tlinux {_path(setup.root, kernel.image, apart)}")
            if kernel.initrd is not None:
                text.append(f"\tinitrd {_path(setup.root, kernel.initrd, apart)}")
            trees = _device_trees(setup, kernel, apart)
            if trees is not None:
                text.append(f"\tfdtdir {_path(setup.root, trees, apart)}/")
            text.append(f"\tappend {line}")
        setup.put(menu, ("\n".join(text) + "\n").encode())
        setup.clamp([menu.parent, menu.parent.parent])
        return NoCode()


def _label(kernel: Kernel) -> str:
    return f"linux-{kernel.release}"


def _path(root: Path, path: Path, apart: bool) -> str:
    """A file as U-Boot names it, which knows the file system and not where that is mounted."""
    return "/" + str(path.relative_to(root / "boot" if apart else root))


def _check(setup: BootSetup, filesystem: Filesystem | None) -> None:
    if filesystem is None or filesystem.type not in _READABLE:
        kind = filesystem.type if filesystem else "nothing"
        raise DiskLayoutError(
            f"U-Boot cannot read /boot on {kind}",
            hint=f"put /boot on one of {', '.join(_READABLE)}, on a partition of its own",
            where=filesystem.where if filesystem else None,
        )
    volumes = setup.graph.volumes_below(filesystem.base)
    if volumes:
        raise DiskLayoutError(
            f'U-Boot cannot read /boot on "{volumes[0].name}"',
            hint="give /boot a partition of its own, with ext4",
            where=filesystem.where,
        )
    if not _is_looked_at(setup.graph, filesystem):
        setup.events.note(
            f'"{filesystem.base}" is neither the first partition nor has it the flag "boot": older U-Boots do not look'
            " for their menu there",
            "warning",
        )


def _is_looked_at(graph: Graph, filesystem: Filesystem) -> bool:
    """U-Boot's scripts take the bootable partitions, or the first one where none is (config_distro_bootcmd.h)."""
    for table in graph.tables:
        for number, partition in enumerate(table.partitions):
            if partition.name == filesystem.base:
                return partition.bootable or (number == 0 and not any(one.bootable for one in table.partitions))
    return True


def _device_trees(setup: BootSetup, kernel: Kernel, apart: bool) -> Path | None:
    """The directory with the kernel's device trees, copied where /boot is a file system of its own; or None."""
    inside = [setup.root / name.format(kernel.release) for name in _TREES_IN_BOOT]
    present = next((path for path in inside if path.is_dir()), None)
    if present is not None:
        return present
    packaged = [setup.root / name.format(kernel.release) for name in _TREES]
    source = next((path for path in packaged if path.is_dir()), None)
    if source is None or not apart:
        return source
    shutil.copytree(source, inside[0], symlinks=True)
    for path in (inside[0].parent, inside[0], *inside[0].rglob("*")):
        os.utime(path, (setup.epoch, setup.epoch), follow_symlinks=False)
    return inside[0]
