"""A dynamic VDI from a raw disk: always the same bytes.

Source of every number: VirtualBox, "VDICore.h", as QEMU's block/vdi.c describes it; version 1.1. All little-endian.

    header (a sector) | block map, up to a whole MiB | blocks of 1 MiB in the order of the disk
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from dibble.outputs.pieces import PIECE, filled, opened, refuse_beyond, write_filled
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import RunningActivity

SECTOR = 512
_BLOCK = PIECE  # 1 MiB, the only size that readers take
_LIMIT = 512 << 40  # QEMU, VDI_DISK_SIZE_MAX
_UNUSED = (1 << 32) - 1
_HEADER_SIZE = 0x190  # of the fields from this one on, as VirtualBox counts them
_DYNAMIC = 1


def write_vdi(raw: Path, target: Path, seed: UUID, activity: RunningActivity | None = None) -> None:
    """Write `target` from the raw file; blocks of zeros are not stored. Raises OSError, OutputError."""
    size = raw.stat().st_size
    refuse_beyond(size, _LIMIT, "vdi")
    count = -(-size // _BLOCK)
    table = [_UNUSED] * count
    data_offset = SECTOR + 4 * count + -(SECTOR + 4 * count) % _BLOCK
    used, checksum = 0, 0
    with opened(raw, target) as (source, sink):
        for start, data in filled(source, size, activity):
            table[start // _BLOCK] = used
            write_filled(sink, data, data_offset + used * _BLOCK)
            checksum = zlib.crc32(data, checksum)
            used += 1
        write_at(sink, struct.pack(f"<{count}I", *table), SECTOR)
        identity = uuid5(seed, f"vdi {size} {used} {checksum}")
        write_at(sink, _header(size, count, used, data_offset, identity), 0)
        os.ftruncate(sink, data_offset + used * _BLOCK)


def _header(size: int, count: int, used: int, data_offset: int, identity: UUID) -> bytes:
    return struct.pack(
        "<64sIIIII256sIIIIIIIQIIII16s16s",
        b"<<< Oracle VM VirtualBox Disk Image >>>\n",
        0xBEDA107F,
        0x10001,
        _HEADER_SIZE,
        _DYNAMIC,
        0,  # flags
        b"",  # comment
        SECTOR,  # where the map begins
        data_offset,
        0,  # cylinders, heads and sectors: the reader's choice
        0,
        0,
        SECTOR,
        0,
        size + -size % SECTOR,
        _BLOCK,
        0,  # nothing between blocks
        count,
        used,
        identity.bytes_le,
        uuid5(identity, "last change").bytes_le,
    ).ljust(SECTOR, b"\0")
