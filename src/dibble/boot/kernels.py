"""The kernels of a tree, as distributions name them in /boot, and what they are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.boot.base import mount_of
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.boot.base import BootSetup

COMMAND_LINE = "etc/kernel/cmdline"
"""Where the element `bootloader` writes their command line, and kernel-install reads it too (kernel-install(8))."""
_NAMES = re.compile(r"(?:vmlinuz|vmlinux|kernel|Image)-(.+)")
_LEFT_ASIDE = (".old", ".rpmsave", ".rpmnew", ".sig", ".hmac", ".dpkg-new", ".dpkg-old", ".dpkg-tmp", ".dpkg-bak")
_INITRDS = (
    *("initrd.img-{}", "initrd-{}.img", "initramfs-{}.img", "initrd-{}", "initrd-{}.gz", "initramfs-genkernel-{}"),
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of a release such as `6.12.57+deb13-amd64`, with its initramfs where there is one.

    `image` is the file itself, which openSUSE keeps beside the modules, with only a link in /boot.
    """

    release: str
    image: Path
    initrd: Path | None


def kernels(root: Path) -> list[Kernel]:
    """The kernels in /boot of a tree, newest first; those that only rescue a system are left out."""
    found = []
    for release, _, image in _named(root):
        names = (root / "boot" / name.format(release) for name in _INITRDS)
        initrd = next((name for name in names if name.is_file() and not name.is_symlink()), None)
        found.append(Kernel(release, image, initrd))
    return sorted(found, key=lambda kernel: _order(kernel.release), reverse=True)


def bring_near(setup: BootSetup) -> None:
    """Put each kernel in the place of its link in /boot where it lies on another file system.

    A boot loader follows no link out of a file system. The scripts of openSUSE's kernels copy too where they see that
    /boot or /usr is a mount (kernel-source, rpm/post.sh), which neither is while an image is built.
    """
    graph, root = setup.graph, setup.root
    for _, path, image in _named(root):
        if path.is_symlink() and mount_of(graph, f"/{image.relative_to(root)}") is not mount_of(graph, "/boot"):
            setup.put(path, image.read_bytes())
            setup.clamp([path.parent])


def _named(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Release, name in /boot and file of each kernel. A link to another kernel's name is none of its own."""
    boot = root / "boot"
    for path in sorted(boot.iterdir()) if boot.is_dir() else ():
        match = _NAMES.fullmatch(path.name)
        if match is None or path.suffix in _LEFT_ASIDE or "rescue" in path.name:
            continue
        image = resolve_inside(root, f"boot/{path.name}") if path.is_symlink() else path
        if image.is_file() and (image == path or image.parent != boot):
            yield match[1], path, image


def _order(release: str) -> list[tuple[int, str]]:
    """Numbers count as such, so that 6.12 comes after 6.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", release)]
