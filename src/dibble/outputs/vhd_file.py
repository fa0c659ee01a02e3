"""VHD files, fixed and dynamic, from a raw disk: always the same bytes.

Source of every number: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from dibble.outputs.pieces import filled, opened, refuse_beyond, write_filled
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import RunningActivity

SECTOR = 512
ALIGN = 1 << 20
"""Azure takes disks of whole MiB only."""
LIMIT = 2040 << 30
"""The greatest VHD that Hyper-V takes (Microsoft, "Comparison of virtual disk formats")."""
_BLOCK = 2 << 20
_YEAR_2000 = 946_684_800  # the format's zero of time, in seconds since 1970
_FIXED, _DYNAMIC = 2, 3
_VERSION = 0x10000
_NONE = (1 << 64) - 1
_TABLE = 3 * SECTOR  # behind the copy of the footer and the header of a dynamic disk
_UNUSED = (1 << 32) - 1


def write_fixed(raw: Path, target: Path, seed: UUID, *, epoch: int, activity: RunningActivity | None = None) -> None:
    """The disk, rounded up to whole MiB, and behind it the footer; sparse. Raises OSError, OutputError."""
    size, rounded = _sizes(raw)
    with opened(raw, target) as (source, sink):
        for start, data in filled(source, size, activity):
            write_filled(sink, data, start)
        write_at(sink, _footer(rounded, _FIXED, _NONE, seed, epoch), rounded)


def write_dynamic(raw: Path, target: Path, seed: UUID, *, epoch: int, activity: RunningActivity | None = None) -> None:
    """Only blocks of 2 MiB that are not all zeros, each behind a bitmap of its sectors. Raises OSError, OutputError."""
    size, rounded = _sizes(raw)
    count = -(-rounded // _BLOCK)
    table = [_UNUSED] * count
    table_size = 4 * count + -4 * count % SECTOR
    end = _TABLE + table_size
    with opened(raw, target) as (source, sink):
        for start, data in filled(source, size, activity):
            number, inside = divmod(start, _BLOCK)
            if table[number] == _UNUSED:
                table[number] = end // SECTOR
                write_at(sink, b"\xff" * (_BLOCK // SECTOR // 8), end)  # every sector of the block counts
                end += SECTOR + _BLOCK
            write_filled(sink, data, (table[number] + 1) * SECTOR + inside)
        footer = _footer(rounded, _DYNAMIC, SECTOR, seed, epoch)
        entries = struct.pack(f">{count}I", *table)
        write_at(sink, footer + _sparse_header(count) + entries.ljust(table_size, b"\xff"), 0)
        write_at(sink, footer, end)


def _sizes(raw: Path) -> tuple[int, int]:
    """The raw file's size, and the size of the disk in the VHD."""
    size = raw.stat().st_size
    rounded = size + -size % ALIGN
    refuse_beyond(rounded, LIMIT, "vhd", other="vhdx")
    return size, rounded


def _footer(size: int, kind: int, header_offset: int, seed: UUID, epoch: int) -> bytes:
    cylinders, heads, per_track = geometry(size)
    block = struct.pack(
        ">8sIIQI4sI4sQQHBBII16s",
        b"conectix",
        2,  # features: this bit is always set
        _VERSION,
        header_offset,
        min(max(0, epoch - _YEAR_2000), _UNUSED),
        b"qem2",  # QEMU takes the size from the geometry, which is too small, unless it knows the creator as exact
        0x50003,  # the creator's version, as QEMU writes it
        b"Wi2k",
        size,
        size,
        cylinders,
        heads,
        per_track,
        kind,
        0,
        uuid5(seed, f"vhd {kind} {size}").bytes,
    ).ljust(SECTOR, b"\0")
    return _with_checksum(block, 64)


def _sparse_header(count: int) -> bytes:
    block = struct.pack(">8sQQIII", b"cxsparse", _NONE, _TABLE, _VERSION, count, _BLOCK).ljust(2 * SECTOR, b"\0")
    return _with_checksum(block, 36)


def _with_checksum(block: bytes, offset: int) -> bytes:
    """The one's complement of the sum of all bytes, put where `block` has zeros."""
    return block[:offset] + struct.pack(">I", ~sum(block) & _UNUSED) + block[offset + 4 :]


def geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track of a disk of `size` bytes (the specification, "CHS Calculation")."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    per_track = 17
    tracks = sectors // per_track
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
        tracks = sectors // per_track
    if tracks >= heads * 1024:
        per_track, heads = 63, 16
        tracks = sectors // per_track
    return tracks // heads, heads, per_track
