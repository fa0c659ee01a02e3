"""Which blocks of an ext2, ext3 or ext4 file system are free, from its own bitmaps.

dumpe2fs(8) tells it too, but takes no file system that begins within a file: `?offset=` is read as the name of a tag
(e2fsprogs 1.47.2). Source: Linux, Documentation/filesystems/ext4, "Super Block", "Block Group Descriptors" and
"Lazy Block Group Initialization".
"""

from __future__ import annotations

import os
import re
import struct

_SUPERBLOCK, _MAGIC = 1024, 0xEF53
_64BIT, _META_BG = 0x80, 0x10  # s_feature_incompat
_BIGALLOC, _CHECKSUMMED = 0x200, 0x10 | 0x400  # s_feature_ro_compat: GDT_CSUM or METADATA_CSUM
_BLOCK_UNINIT = 0x2  # bg_flags: no bitmap was written, nothing but the group's own metadata is in it
_DESCRIPTOR = 32
_RUN = re.compile("0+")


def free_ranges(descriptor: int, offset: int) -> list[tuple[int, int]]:
    """Begin and end, in bytes of the file, of the free blocks of the file system at `offset`; in order, neighbours
    joined. Empty where the blocks are told apart in another way (bigalloc, meta_bg) or there is no such file system.

    Linear in the number of groups. A block that may be metadata does not count as free.
    """
    head = os.pread(descriptor, 1024, offset + _SUPERBLOCK)
    (magic,) = struct.unpack_from("<H", head, 56)
    incompat, ro_compat = struct.unpack_from("<II", head, 96)
    if magic != _MAGIC or incompat & _META_BG or ro_compat & _BIGALLOC:
        return []
    low, first, log_size, per_group, inodes = (struct.unpack_from("<I", head, at)[0] for at in (4, 20, 24, 32, 40))
    inode_size, spare, size = (struct.unpack_from("<H", head, at)[0] for at in (88, 206, 254))
    wide = bool(incompat & _64BIT)
    count = low | (struct.unpack_from("<I", head, 336)[0] << 32 if wide else 0)
    size = size if wide else _DESCRIPTOR
    block = 1024 << log_size
    groups = -(-(count - first) // per_group)
    table = os.pread(descriptor, groups * size, offset + (first + 1) * block)
    own = 1 + -(-groups * size // block) + spare  # superblock and descriptors, of which not every group has a copy
    found: list[tuple[int, int]] = []
    for group in range(groups):
        entry = table[group * size : (group + 1) * size]
        places = list(struct.unpack_from("<III", entry))  # the bitmaps of blocks and of inodes, the inodes
        if wide and size > _DESCRIPTOR:
            places = [p | high << 32 for p, high in zip(places, struct.unpack_from("<III", entry, 32), strict=True)]
        start = first + group * per_group
        length = min(per_group, count - start)
        if ro_compat & _CHECKSUMMED and struct.unpack_from("<H", entry, 18)[0] & _BLOCK_UNINIT:
            bits = bytearray(b"0" * length)
            bits[:own] = b"1" * min(own, length)
            for place, blocks in ((places[0], 1), (places[1], 1), (places[2], -(-inodes * inode_size // block))):
                begin, end = max(place - start, 0), min(place + blocks - start, length)
                if begin < end:
                    bits[begin:end] = b"1" * (end - begin)
            text = bits.decode()
        else:
            bitmap = os.pread(descriptor, -(-length // 8), offset + places[0] * block)
            text = format(int.from_bytes(bitmap, "little"), f"0{len(bitmap) * 8}b")[::-1][:length]
        for run in _RUN.finditer(text):
            begin, end = (offset + (start + at) * block for at in run.span())
            if found and found[-1][1] == begin:
                begin = found.pop()[0]
            found.append((begin, end))
    return found
