"""F2FS, made by mkfs.f2fs(8) and filled by sload.f2fs(8).

sload.f2fs writes files, directories and symbolic links with owners, modes, hard links and times to the second. It
leaves out extended attributes (and with them access control lists and capabilities), fifos, sockets and device nodes,
without a word; a tree with any of them is refused.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dibble.disk.filesystems.apart import made_apart
from dibble.disk.filesystems.base import FilesystemInfo, refused, too_small
from dibble.errors import OutputError, ToolFailed

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem
    from dibble.tree.inodes import Inode

_LEAST = 52 << 20
"""mkfs.f2fs(8) makes none that is smaller without options."""

_SUPER_AT = 1024
_VERSIONS = ((0x66C, 256), (0x76C, 256))  # struct f2fs_super_block: version and init_version


class F2fs:
    info = FilesystemInfo("f2fs", label_length=255, tools=("filesystems",))

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """Content, a block for each inode, and what is kept back for cleaning."""
        return max(_LEAST, int((allocated + files * 4096) * 1.15) + (40 << 20))

    def write(self, node: Filesystem, place: Place) -> None:
        from dibble.tree.inodes import inodes

        if place.content is not None:
            for inode in inodes(place.content, place.epoch):
                _check(inode)
        with made_apart(node, place, place.extent.size) as path:
            image = place.toolbox.path(path)
            stamp = ["-T", str(place.epoch)]
            argv = ["mkfs.f2fs", "-q", "-f", "-r", *stamp, "-l", node.label, "-U", str(node.uuid), *node.options]
            try:
                place.toolbox.run([*argv, image])
            except ToolFailed as error:
                raise refused(node, "mkfs.f2fs", error.output) from error
            if place.content is not None:
                try:
                    place.toolbox.run(["sload.f2fs", "-P", "-f", place.toolbox.path(place.content), image])
                except ToolFailed as error:
                    raise too_small(node, place) from error
            _set_versions(path)


def _check(inode: Inode) -> None:
    """Refuse what would be lost."""
    from dibble.tree.inodes import attributes

    kept = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    names = [name for name, _ in attributes(inode.path)] if inode.kind in kept else []
    lost = f"has the attribute {names[0]}" if names else "is neither file nor directory nor symbolic link"
    if names or inode.kind not in kept:
        raise OutputError(
            f"{os.fsdecode(inode.path)} {lost}, which sload.f2fs leaves out",
            hint="take another type of file system, such as ext4 or xfs",
        )


def _set_versions(path: Path) -> None:
    """Write a constant over the version of the build machine's kernel, which stands in both superblocks."""
    with path.open("r+b") as file:
        for block in range(2):
            for offset, length in _VERSIONS:
                file.seek(block * 4096 + _SUPER_AT + offset)
                file.write(b"dibble".ljust(length, b"\0"))
