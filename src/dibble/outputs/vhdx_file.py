"""A dynamic VHDX from a raw disk: always the same bytes.

Source of every number: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format". All numbers are little-endian.

    0 file type | 64 KiB, 128 KiB headers | 192 KiB, 256 KiB region tables | 1 MiB log, empty | 2 MiB metadata
    3 MiB block allocation table | blocks in the order of the disk, each at a whole MiB
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from dibble.disk.crc32c import crc32c
from dibble.outputs.pieces import filled, opened, refuse_beyond, write_filled
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import RunningActivity

SECTOR = 512
LIMIT = 64 << 40
_KIB, _MIB = 1 << 10, 1 << 20
_BLOCK = 1 << 20
"""What Microsoft advises for Linux, whose file systems write here and there; greater disks have blocks of 32 MiB, so
that the table stays small."""
_GREAT = 2 << 40
_GREAT_BLOCK = 32 << 20
_LOG, _METADATA, _TABLE = 1 * _MIB, 2 * _MIB, 3 * _MIB  # where these begin
_PRESENT, _ZERO = 6, 2  # states of a block
_VIRTUAL_DISK, _REQUIRED = 2, 4  # flags of an item of metadata
_TABLE_REGION = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")


def write_vhdx(raw: Path, target: Path, seed: UUID, activity: RunningActivity | None = None) -> None:
    """Write `target` from the raw file; blocks of zeros are not stored. Raises OSError, OutputError."""
    size = raw.stat().st_size
    size += -size % SECTOR
    refuse_beyond(size, LIMIT, "vhdx")
    with opened(raw, target) as (source, sink):
        _write(source, sink, size, seed, activity)


def _write(source: int, sink: int, size: int, seed: UUID, activity: RunningActivity | None) -> None:
    block = _BLOCK if size <= _GREAT else _GREAT_BLOCK
    count = -(-size // block)
    per_chunk = (1 << 23) * SECTOR // block  # blocks to each bitmap entry, which stands behind them and is unused
    entries = count + (count - 1) // per_chunk if count else 0
    table_size = max(_MIB, 8 * entries + -8 * entries % _MIB)
    offsets: dict[int, int] = {}
    end, checksum = _TABLE + table_size, 0
    for start, data in filled(source, size, activity):
        number, inside = divmod(start, block)
        if number not in offsets:
            offsets[number] = end
            end += block
        write_filled(sink, data, offsets[number] + inside)
        checksum = zlib.crc32(data, checksum)
    table = [0] * entries
    for number in range(count):
        offset = offsets.get(number)
        table[number + number // per_chunk] = _ZERO if offset is None else offset | _PRESENT
    write_at(sink, struct.pack(f"<{entries}Q", *table), _TABLE)
    identity = uuid5(seed, f"vhdx {size} {len(offsets)} {checksum}")
    write_at(sink, _metadata(size, block, identity), _METADATA)
    regions = _regions(table_size)
    for offset in (192 * _KIB, 256 * _KIB):
        write_at(sink, regions, offset)
    for number, offset in enumerate((64 * _KIB, 128 * _KIB)):
        write_at(sink, _header(number, identity), offset)
    write_at(sink, b"vhdxfile" + "dibble".encode("utf-16-le"), 0)
    os.ftruncate(sink, end)


def _header(number: int, identity: UUID) -> bytes:
    """The one with the greater sequence number counts; a log without a name is empty."""
    block = struct.pack(
        "<4sIQ16s16s16sHHIQ",
        b"head",
        0,
        number,
        uuid5(identity, "file").bytes_le,
        uuid5(identity, "data").bytes_le,
        bytes(16),
        0,  # the log's version
        1,
        _MIB,
        _LOG,
    ).ljust(4 * _KIB, b"\0")
    return _with_checksum(block)


def _regions(table_size: int) -> bytes:
    block = struct.pack("<4sIII", b"regi", 0, 2, 0)
    block += struct.pack("<16sQII", _TABLE_REGION.bytes_le, _TABLE, table_size, 1)
    block += struct.pack("<16sQII", _METADATA_REGION.bytes_le, _METADATA, _MIB, 1)
    return _with_checksum(block.ljust(64 * _KIB, b"\0"))


def _metadata(size: int, block: int, identity: UUID) -> bytes:
    items = (
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", struct.pack("<II", block, 0), _REQUIRED),  # file parameters
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", struct.pack("<Q", size), _REQUIRED | _VIRTUAL_DISK),
        ("beca12ab-b2e6-4523-93ef-c309e000c746", identity.bytes_le, _REQUIRED | _VIRTUAL_DISK),  # page 83 of SCSI
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", struct.pack("<I", SECTOR), _REQUIRED | _VIRTUAL_DISK),  # logical
        ("cda348c7-445d-4471-9cc9-e9885251c556", struct.pack("<I", 4096), _REQUIRED | _VIRTUAL_DISK),  # physical
    )
    head = struct.pack("<8sHH20x", b"metadata", 0, len(items))
    body = b""
    for name, data, flags in items:
        head += struct.pack("<16sIIII", UUID(name).bytes_le, 64 * _KIB + len(body), len(data), flags, 0)
        body += data
    return head.ljust(64 * _KIB, b"\0") + body


def _with_checksum(block: bytes) -> bytes:
    return block[:4] + struct.pack("<I", crc32c(block)) + block[8:]
