"""Whether an XFS was unmounted: then the last record of its log says so, and nothing waits in it.

Source: "XFS Algorithms & Data Structures", 3rd edition, chapter 12, "Journaling Log".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dibble.read.xfs_blocks import Volume

_SECTOR = 512
_MAGIC = b"\xfe\xed\xba\xbe"
_UNMOUNT = 0x20  # flag of an operation
_PIECE = 4 << 20
_HEADER_COVERS = 32 << 10  # bytes of a record that one sector of its header describes


def is_clean(volume: Volume) -> bool:
    """Whether the newest record of the log is that of an unmount; a log elsewhere or without records is clean."""
    if not volume.log_start:
        return True
    begin = volume.offset(volume.log_start)
    size = volume.log_blocks * volume.block_size
    newest, place = -1, 0
    for at in range(0, size, _PIECE):
        data = volume.bytes_at(begin + at, min(_PIECE, size - at))
        found = data.find(_MAGIC)
        while found >= 0:
            if found % _SECTOR == 0 and data[found + 304 : found + 320] in (volume.uuid, volume.shown_uuid):
                (number,) = struct.unpack_from(">Q", data, found + 16)
                if number > newest:
                    newest, place = number, at + found
            found = data.find(_MAGIC, found + 4)
    if newest < 0:
        return True
    header = volume.bytes_at(begin + place, _SECTOR)
    (operations,) = struct.unpack_from(">I", header, 40)
    (version,) = struct.unpack_from(">I", header, 8)
    (buffer_size,) = struct.unpack_from(">I", header, 320)
    sectors = -(-buffer_size // _HEADER_COVERS) if version & 2 and buffer_size > _HEADER_COVERS else 1
    body = (place + sectors * _SECTOR) % size
    operation = volume.bytes_at(begin + body, _SECTOR)
    return operations == 1 and bool(operation[9] & _UNMOUNT)
