"""The kernels of a tree, as distributions name them in /boot, and what they are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_LINE = "etc/kernel/cmdline"
"""Where the element `bootloader` writes their command line, and kernel-install reads it too (kernel-install(8))."""
_NAMES = re.compile(r"(?:vmlinuz|vmlinux|kernel)-(.+)")
_LEFT_ASIDE = (".old", ".rpmsave", ".rpmnew", ".sig", ".hmac", ".dpkg-new", ".dpkg-old", ".dpkg-tmp", ".dpkg-bak")
_INITRDS = (
    *("initrd.img-{}", "initrd-{}.img", "initramfs-{}.img", "initrd-{}", "initrd-{}.gz", "initramfs-genkernel-{}"),
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of a release such as `6.12.57+deb13-amd64`, with its initramfs where there is one."""

    release: str
    image: Path
    initrd: Path | None


def kernels(root: Path) -> list[Kernel]:
    """The kernels in /boot of a tree, newest first; those that only rescue a system are left out."""
    boot = root / "boot"
    found = []
    for path in sorted(boot.iterdir()) if boot.is_dir() else ():
        match = _NAMES.fullmatch(path.name)
        if match is None or path.suffix in _LEFT_ASIDE or "rescue" in path.name:
            continue
        if path.is_symlink() or not path.is_file():
            continue
        names = (boot / name.format(match[1]) for name in _INITRDS)
        initrd = next((name for name in names if name.is_file() and not name.is_symlink()), None)
        found.append(Kernel(match[1], path, initrd))
    return sorted(found, key=lambda kernel: _order(kernel.release), reverse=True)


def _order(release: str) -> list[tuple[int, str]]:
    """Numbers count as such, so that 6.12 comes after 6.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", release)]
