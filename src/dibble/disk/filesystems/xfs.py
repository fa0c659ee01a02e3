"""XFS: made empty by mkfs.xfs(8), filled by our own writer.

mkfs.xfs can fill a file system from a list of files (`-p`), but loses hard links, times and sticky bits on the way, and
names with blanks; so it only lays out the empty one here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dibble.disk.filesystems.apart import made_apart
from dibble.disk.filesystems.base import FilesystemInfo, refused, too_small, value_of
from dibble.errors import ToolFailed

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem

_LEAST = 300 << 20
"""mkfs.xfs(8) of xfsprogs 5.19 and later makes none that is smaller."""
_INODE, _BLOCK = 512, 4096
_LARGEST_LOG = 2 << 30

# GRUB before 2.12 cannot read inodes with 64-bit counts of extents; reverse maps serve repairs of mounted file systems
# alone, take space, and kernels before 4.8 only read what has them.
_DEFAULTS = (("-i", "nrext64", "0"), ("-m", "rmapbt", "0"))


class Xfs:
    info = FilesystemInfo("xfs", label_length=12, tools=("filesystems",))

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """Content, inodes, 3 % for directories and trees, and the log: 64 MiB, or a 2048th of large ones."""
        content = int((allocated + files * _INODE) * 1.03) + (4 << 20)
        log = min(max(64 << 20, content // 2048), _LARGEST_LOG)
        return max(_LEAST, content + log)

    def write(self, node: Filesystem, place: Place) -> None:
        from dibble.disk.filesystems import xfs_format, xfs_tree
        from dibble.disk.filesystems.xfs_space import Full

        if place.extent.size < _LEAST:
            raise too_small(node, place, _LEAST)
        with made_apart(node, place, place.extent.size) as empty:
            _make_empty(node, place, empty)
        if place.content is None:
            return
        descriptor = os.open(place.image, os.O_RDWR | os.O_CLOEXEC)
        try:
            xfs_tree.fill(xfs_format.Device(descriptor, place.extent.offset), place.content, place.epoch)
        except Full as error:
            raise too_small(node, place) from error
        except xfs_format.Unsupported as error:
            raise refused(node, str(error)) from error
        finally:
            os.close(descriptor)


def _make_empty(node: Filesystem, place: Place, empty: Path) -> None:
    argv = ["mkfs.xfs", "-q", "-f", "-K", "-L", node.label, "-m", f"uuid={node.uuid}"]
    if place.sector_size != 512 and not value_of("-s", node.options):
        argv += ["-s", f"size={place.sector_size}"]
    options = [*node.options]
    for option, name, value in _DEFAULTS:
        given = [options[at + 1] for at, word in enumerate(options[:-1]) if word == option]
        given += [word[2:] for word in options if word.startswith(option) and len(word) > len(option)]
        if not any(part.partition("=")[0] == name for words in given for part in words.split(",")):
            argv += [option, f"{name}={value}"]
    try:
        place.toolbox.run([*argv, *options, place.toolbox.path(empty)])
    except ToolFailed as error:
        raise refused(node, "mkfs.xfs", error.output) from error
