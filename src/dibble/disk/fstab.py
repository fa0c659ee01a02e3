"""The image's /etc/fstab, and the facts of the description that hooks ask for (contract.md 5.1, 5.5)."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.disk.nodes.mount import SWAP_POINT
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from dibble.disk.model import Filesystem, Graph

_HEADER = "# Made with the image, from its block-device description; see fstab(5).\n"
_NEVER_WRITTEN = frozenset({"erofs", "squashfs"})
_NEED_STATE = ("image-path", "image-block-device", "image-block-devices")


def fstab_text(graph: Graph) -> str:
    """A comment, then a line for each mount with an fstab node, in mount order; devices by label, never by UUID."""
    filesystems = {filesystem.name: filesystem for filesystem in graph.filesystems}
    entries = {entry.base: entry for entry in graph.fstab}
    lines = []
    for mount in graph.mounts:
        if entry := entries.get(mount.name):
            filesystem = filesystems[mount.base]
            device, point = f"LABEL={_escaped(filesystem.label)}", _escaped(mount.point)
            top = next((one.name for one in filesystem.subvolumes if one.path == "/"), "")
            options = f"{entry.options},subvol={_escaped(top)}" if top else entry.options
            lines.append(f"{device} {point} {filesystem.type} {options} {entry.dump} {entry.passno}\n")
            for one in sorted(filesystem.subvolumes, key=lambda one: one.path.encode()):
                if one.path != "/":
                    below = _escaped(mount.point.rstrip("/") + one.path)
                    options = f"{entry.options},subvol={_escaped(one.name)}"
                    lines.append(f"{device} {below} {filesystem.type} {options} {entry.dump} 0\n")
    return _HEADER + "".join(lines)


def read_only_root(graph: Graph) -> str:
    """Why the running system could not write to its root though it should; empty where all is well.

    The kernel mounts the root as its command line says, and loaders say `ro`, so that it can be checked; what makes it
    writable is its line in fstab (systemd-remount-fs.service(8)).
    """
    entries = {entry.base for entry in graph.fstab}
    root = next((mount for mount in graph.mounts if mount.point == "/" and mount.name not in entries), None)
    if root is None or _at(graph, "/").type in _NEVER_WRITTEN:
        return ""
    return f"{root.where}: / has no fstab, so the system leaves it read-only: add `fstab: {{}}` to its mount"


def getval(graph: Graph, symbol: str) -> str:
    """What `dib-block-device getval SYMBOL` prints for what is known before the disk is made.

    `boot-label` is empty without a file system at /boot; `mount-points` are joined by `|` in the order of the
    description, without swap. Raises DiskLayoutError for any other symbol.
    """
    if symbol == "root-label":
        return _at(graph, "/").label
    if symbol == "root-fstype":
        return _at(graph, "/").type
    if symbol == "boot-label":
        return _at(graph, "/boot").label if any(mount.point == "/boot" for mount in graph.mounts) else ""
    if symbol == "mount-points":
        paths = [mount for mount in graph.mounts if mount.point != SWAP_POINT]
        paths.sort(key=lambda mount: (mount.where.line or 0, mount.where.column or 0))
        return "|".join(mount.point for mount in paths)
    if symbol in _NEED_STATE:
        raise DiskLayoutError(
            f"{symbol} is not known from the description alone", hint="ask for it when the disk has been created"
        )
    known = ("boot-label", *_NEED_STATE, "mount-points", "root-fstype", "root-label")
    near = get_close_matches(symbol, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(known)}"
    raise DiskLayoutError(f'unknown symbol "{symbol}"', hint=hint)


def _at(graph: Graph, point: str) -> Filesystem:
    name = next(mount.base for mount in graph.mounts if mount.point == point)
    return next(filesystem for filesystem in graph.filesystems if filesystem.name == name)


def _escaped(field: str) -> str:
    """Blanks and backslashes as fstab(5) wants them, so that a field stays one field."""
    return "".join(f"\\{ord(sign):03o}" if sign in " \t\\#" else sign for sign in field)
