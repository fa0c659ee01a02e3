"""What is on a disk or in a partition, by the marks that it begins with, and its label where it has one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

EXT = "ext"
VFAT = "vfat"
XFS, BTRFS = "xfs", "btrfs"
TREES = (EXT, XFS, BTRFS)
"""Those that hold the tree of a system and are read."""
_HEAD = 0x10400

# Offset, mark, name. Sources: Linux fs/*/ and include/uapi/linux/magic.h; cryptsetup and LVM2 for theirs.
_MARKS = (
    (0, b"XFSB", XFS),
    (0x10040, b"_BHRfS_M", BTRFS),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs"),
    (0x400, b"\xe2\xe1\xf5\xe0", "erofs"),
    (0, b"hsqs", "squashfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0x200, b"LABELONE", "LVM"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "RAID"),
    (0xFF6, b"SWAPSPACE2", "swap"),
)
_LABELS = {XFS: (108, 120), BTRFS: (0x1012B, 0x1022B)}
_EXT_AT = 0x400
_EXT_MAGIC = b"\x53\xef"
_EXT_RECOVER = 0x4  # INCOMPAT_RECOVER: the journal holds what is not in its place yet


@dataclass(frozen=True, slots=True)
class Content:
    """`kind` is a name of ours (`ext` for ext2, ext3 and ext4), empty for what is not known."""

    kind: str
    label: str = ""
    needs_recovery: bool = False


def content_at(disk: IO[bytes], offset: int) -> Content:
    """What begins at an offset (bytes) of a disk."""
    disk.seek(offset)
    head = disk.read(_HEAD)
    superblock = head[_EXT_AT:]
    if superblock[56:58] == _EXT_MAGIC:
        label = superblock[120:136].partition(b"\0")[0].decode("utf-8", "replace")
        (incompatible,) = struct.unpack_from("<I", superblock, 96)
        return Content(EXT, label, bool(incompatible & _EXT_RECOVER))
    for at, mark, name in _MARKS:
        if head[at : at + len(mark)] == mark:
            begin, end = _LABELS.get(name, (0, 0))
            return Content(name, head[begin:end].partition(b"\0")[0].decode("utf-8", "replace"))
    for at, label_at in ((54, 43), (82, 71)):  # FAT12 and FAT16, FAT32
        if head[at : at + 3] == b"FAT" and head[510:512] == b"\x55\xaa":
            return Content(VFAT, head[label_at : label_at + 11].decode("ascii", "replace").strip())
    return Content("")
