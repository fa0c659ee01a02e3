"""Btrfs: laid out by mkfs.btrfs(8), written by ourselves.

mkfs.btrfs can fill a file system too (`--rootdir`), but in the order in which the host lists directories, with chance
and the hour in it, without holes, and at the beginning of a device only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid5

from dibble.disk.filesystems.apart import content_or_nothing
from dibble.disk.filesystems.base import FilesystemInfo, refused, too_small
from dibble.errors import ToolFailed

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.filesystems.btrfs_volume import Subvolume
    from dibble.disk.model import Defaults, Filesystem

_LEAST = 128 << 20
"""mkfs.btrfs(8) makes smaller ones, but with hardly a chunk to spare for what is written later."""
_OWN = {"--subvol": "subvolumes", "-u": "subvolumes", "--compress": "compression"}
"""Options of mkfs.btrfs that say how it fills a file system, which is our part."""
_KINDS = ("rw", "ro", "default", "default-ro")


class Btrfs:
    info = FilesystemInfo("btrfs", label_length=255, tools=("filesystems",), has_subvolumes=True)

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """Content and its checksums, two copies of the trees with some 600 bytes for each inode, and a chunk to spare
        for each kind."""
        content = allocated + allocated // 900
        return max(_LEAST, int(content * 1.02) + 2 * 600 * files + (48 << 20))

    def write(self, node: Filesystem, place: Place) -> None:
        from dibble.disk.filesystems import btrfs_format, btrfs_volume

        if place.extent.size < _LEAST:
            raise too_small(node, place, _LEAST)
        options, subvolumes, compression = _own_options(node, place)
        empty = place.image.with_name(f"{place.image.name}.{node.name}.empty")
        descriptor = os.open(place.image, os.O_RDWR | os.O_CLOEXEC)
        try:
            _make_empty(node, place, empty, options)
            with content_or_nothing(place.content, empty) as content:
                btrfs_volume.fill(
                    *(descriptor, place.extent.offset, empty, content),
                    *(subvolumes, compression, node.uuid, place.epoch),
                )
        except btrfs_format.Full as error:
            raise too_small(node, place) from error
        except (btrfs_format.Unsupported, ValueError) as error:
            raise refused(node, str(error)) from error
        finally:
            os.close(descriptor)
            empty.unlink(missing_ok=True)


def _own_options(node: Filesystem, place: Place) -> tuple[list[str], list[Subvolume], str]:
    """The options that mkfs.btrfs gets, and what the others say."""
    from dibble.disk.filesystems.btrfs_volume import Subvolume

    rest: list[str] = []
    subvolumes = [Subvolume(one.path.strip("/"), one.name, is_default=one.path == "/") for one in node.subvolumes]
    compression = "no"
    words = iter(node.options)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("-r", "--rootdir", "--shrink", "--reflink", "--inode-flags"):
            raise refused(node, name)
        if name not in _OWN:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if _OWN[name] == "compression":
            compression = value
            continue
        kind, colon, path = value.rpartition(":")
        kind = kind if colon else "rw"
        if kind not in _KINDS or not path.strip("/"):
            raise refused(node, f"{name} {value}")
        read_only, is_default = kind in ("ro", "default-ro"), kind.startswith("default")
        subvolumes.append(Subvolume(path.strip("/"), read_only=read_only, is_default=is_default))
    return rest, subvolumes, compression


def _make_empty(node: Filesystem, place: Place, empty: Path, options: list[str]) -> None:
    with empty.open("wb") as file:
        file.truncate(place.extent.size)
    argv = ["mkfs.btrfs", "-q", "-K", "-f", "-L", node.label, "-U", str(node.uuid)]
    argv += ["--device-uuid", str(uuid5(node.uuid, "device")), *options]
    try:
        place.toolbox.run([*argv, place.toolbox.path(empty)])
    except ToolFailed as error:
        raise refused(node, "mkfs.btrfs", error.output) from error
