"""ext2, ext3 and ext4, made and filled in one pass by mke2fs(8), straight into the image file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import uuid5

from dibble.disk.filesystems.base import FilesystemInfo
from dibble.disk.sizes import human
from dibble.errors import OutputError, ToolFailed

if TYPE_CHECKING:
    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem

_BLOCK = 4096
_INODE = 256
_FULL = re.compile(r"Could not allocate (block|inode)|No space left|too small for", re.IGNORECASE)

# Off, because GRUB before 2.12 cannot read a file system with the first, and kernels before 5.15 and e2fsck before 1.47
# refuse one with the second; images are for older systems too. `-O` of the caller's turns them on again.
_FEATURES = ("^metadata_csum_seed", "^orphan_file")

# The storage is a new sparse file: nothing needs to be zeroed now, nor in the background at the first boot.
_EXTENDED = ("assume_storage_prezeroed=1", "nodiscard")


_SMALL_RATIO = 4096
"""Bytes for each inode: what DIB asks for, and what mke2fs takes for small file systems (mke2fs.conf(5))."""


def _bytes_per_inode(options: tuple[str, ...]) -> int:
    """The value of `-i`; it is only read, mke2fs says what is wrong with it."""
    for number, option in enumerate(options):
        value = option[2:] or "".join(options[number + 1 : number + 2]) if option.startswith("-i") else ""
        if value.isdigit() and int(value) > _INODE:
            return int(value)
    return _SMALL_RATIO


class Ext4:
    info = FilesystemInfo("ext4", label_length=16)
    _features: tuple[str, ...] = _FEATURES

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """Content, the journal, an inode for each `-i` bytes of both, and 2 % for bitmaps, descriptors and directories
        that span blocks."""
        journal = defaults.journal_mib << 20 if self.info.name == "ext4" else 0
        # mke2fs takes no journal of more than half the free blocks (figure_journal_size, misc/util.c of e2fsprogs 1.47)
        content = max(allocated + journal, 2 * journal)
        inodes = max(files * _INODE, content * _INODE // (_bytes_per_inode(node.options) - _INODE))
        return int((content + inodes) * 1.02) + (1 << 20)

    def write(self, node: Filesystem, place: Place) -> None:
        toolbox = place.toolbox
        options, extended, features = _split(node.options)
        extended = [
            *_EXTENDED,
            f"hash_seed={uuid5(node.uuid, 'hash_seed')}",
            f"offset={place.extent.offset}",
            *extended,
        ]
        argv = ["mke2fs", "-q", "-F", "-t", self.info.name, "-L", node.label, "-U", str(node.uuid)]
        if not any(option.startswith("-b") for option in options):
            argv += ["-b", str(_BLOCK)]
        argv += [*options, "-E", ",".join(extended)]
        if features := [*self._features, *features]:
            argv += ["-O", ",".join(features)]
        if place.content is not None:
            argv += ["-d", toolbox.path(place.content)]
        argv += [toolbox.path(place.image), f"{place.extent.size // 1024}k"]
        try:
            toolbox.run(argv, env={"SOURCE_DATE_EPOCH": str(place.epoch), "E2FSPROGS_LIBMAGIC_SUPPRESS": "1"})
        except ToolFailed as error:
            if _FULL.search(error.output):
                raise OutputError(
                    f"the file system {node.name} of {human(place.extent.size)} is too small for its content",
                    hint="give a larger --image-size, or DIB_IMAGE_EXTRA_SIZE, or a larger partition",
                    where=node.where,
                ) from error
            raise


class Ext3(Ext4):
    info = FilesystemInfo("ext3", label_length=16)
    _features = ()


class Ext2(Ext4):
    info = FilesystemInfo("ext2", label_length=16)
    _features = ()


def _split(options: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """The options less `-E` and `-O`, and what these two list: mke2fs takes only the last of each."""
    others: list[str] = []
    lists: dict[str, list[str]] = {"-E": [], "-O": []}
    words = iter(options)
    for word in words:
        if word[:2] in lists:
            value = word[2:] or next(words, "")
            lists[word[:2]] += [part for part in value.split(",") if part]
        else:
            others.append(word)
    return others, lists["-E"], lists["-O"]
