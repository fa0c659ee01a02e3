"""What a disk holds that is about to be written over, told by the marks at its beginning and end."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from dibble.publish.base import PublishError
from dibble.read.superblocks import EXT, content_at

if TYPE_CHECKING:
    from collections.abc import Callable

EDGE = 4 << 20
"""Bytes at the beginning and at the end of a disk in which every table, volume and file system has its mark."""
_KIB = 1024
_IN_WORDS = {
    "LUKS": "an encrypted container (LUKS)",
    "LVM": "a physical volume of LVM",
    "RAID": "a member of a RAID array",
    "swap": "swap space",
    EXT: "a file system (ext2, ext3 or ext4)",
}
"""What is not a file system of the name that `read/superblocks.py` gives."""

# What only a whole disk has (blkid's table, libblkid/src/superblocks and partitions, names the same).
_MARKS: tuple[tuple[int, bytes, str], ...] = (
    *((sector * 512, b"LABELONE", "a physical volume of LVM") for sector in range(4)),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
    (32 * _KIB + 1, b"CD001", "a file system (ISO 9660)"),
    *((offset, b"EFI PART", "partitions (GPT)") for offset in (512, 4 * _KIB)),
    (510, b"\x55\xaa", "partitions or a boot sector"),
)
_RAID = b"\xfc\x4e\x2b\xa9"


def held(read: Callable[[int, int], bytes], size: int) -> str:
    """What a disk of `size` bytes holds, in words; empty for one that is blank. `read` takes offset and length.

    Blank is what has nothing but zeros in its first and its last 4 MiB.
    """
    first = read(0, min(EDGE, size))
    last = read(max(0, size - EDGE), min(EDGE, size))
    kind = content_at(io.BytesIO(first), 0).kind
    if kind:
        return _IN_WORDS.get(kind, f"a file system ({kind})")
    for offset, mark, what in _MARKS:
        if first[offset : offset + len(mark)] == mark:
            return what
    if any(last[place : place + 4] == _RAID for place in range(0, len(last), 4 * _KIB)):
        return "a member of a RAID array"
    if last[-512:-504] == b"EFI PART":
        return "the end of a partition table (GPT)"
    return "data" if first.strip(b"\0") or last.strip(b"\0") else ""


def refuse(where: str, what: str) -> PublishError:
    return PublishError(
        f"{where} is not empty: it holds {what}", hint="look whether that is the right one; --force writes over it"
    )


def too_small(where: str, size: int, wanted: int) -> PublishError:
    return PublishError(
        f"{where} has {size} bytes, the disk needs {wanted}",
        hint=f"take a larger one: {(wanted - size + (1 << 20) - 1) >> 20} MiB are missing",
    )
