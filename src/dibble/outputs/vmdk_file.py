"""A stream-optimized VMDK from a raw disk: compressed on all processors, and always the same bytes.

Source of every number: VMware, "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and "Stream-Optimized
Compressed Sparse Extents". All numbers are little-endian, all offsets count sectors.

    header | descriptor | { grains | grain table } … | grain directory | footer | end-of-stream
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

from dibble.errors import OutputError
from dibble.outputs.pieces import is_zero, worked
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import RunningActivity

SECTOR = 512
GRAIN = 64 << 10
"""128 sectors; readers of stream-optimized disks, VMware's first of all, expect no other size."""
_ENTRIES = 512  # of a grain table, so that one covers 32 MiB
_LEVEL = 6
_DESCRIPTOR_SECTORS = 20
_OVERHEAD = 128  # sectors before the first grain
_VERSION = 3
_FLAGS = 1 | 1 << 16 | 1 << 17  # line ends are whole, grains are compressed, markers are there
_DEFLATE = 1
_AT_THE_END = (1 << 64) - 1  # the grain directory's offset is in the footer
_TABLE, _DIRECTORY, _FOOTER = 1, 2, 3  # kinds of markers
_MOST_SECTORS = (1 << 32) - 1  # of the file: offsets of grains have 32 bits


def write_vmdk(raw: Path, target: Path, activity: RunningActivity | None = None, *, threads: int = 0) -> None:
    """Write `target` from the raw file; holes and zeros take no room. The bytes depend on its content alone.

    Holds some MiB a thread. Raises OSError; OutputError when the file would have more than 2 TiB.
    """
    sink = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        append_vmdk(raw, sink, 0, activity, threads=threads)
    finally:
        os.close(sink)


def append_vmdk(
    raw: Path, sink: int, base: int, activity: RunningActivity | None = None, *, threads: int = 0
) -> tuple[int, int]:
    """Write the file from `base` on (bytes) into `sink`, as a member of an archive.

    Returns the file's size, and how many bytes of the disk its grains hold.
    """
    source = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        stream = _Stream(sink, base, size + -size % SECTOR)
        for start, grains in worked(source, size, _compressed, threads=threads):
            for number, data in grains:
                stream.add(number, data)
            if activity:
                activity.progress(min(start + (1 << 20), size), size, "bytes")
        return stream.finish(), stream.grains * GRAIN
    finally:
        os.close(source)


def _compressed(start: int, data: bytes) -> list[tuple[int, bytes]]:
    """Number and record of each grain that is not all zeros: marker, deflated content, filled up to a sector."""
    found = []
    for offset in range(0, len(data), GRAIN):
        plain = data[offset : offset + GRAIN].ljust(GRAIN, b"\0")
        if is_zero(plain):
            continue
        number = (start + offset) // GRAIN
        packed = zlib.compress(plain, _LEVEL)
        record = struct.pack("<QI", number * (GRAIN // SECTOR), len(packed)) + packed
        found.append((number, record + bytes(-len(record) % SECTOR)))
    return found


class _Stream:
    """Appends grains in order; each grain table follows its last grain."""

    def __init__(self, sink: int, base: int, size: int) -> None:
        self._sink = sink
        self._base = base
        self._sectors = size // SECTOR
        self._at = _OVERHEAD  # where the next record begins, in sectors
        self._directory = [0] * -(-size // (GRAIN * _ENTRIES))
        self._table = [0] * _ENTRIES
        self._table_number = -1
        self._checksum = 0
        self.grains = 0

    def add(self, number: int, record: bytes) -> None:
        table, entry = divmod(number, _ENTRIES)
        if table != self._table_number:
            self._end_table()
            self._table_number = table
        self._table[entry] = self._append(record)
        self._checksum = zlib.crc32(record, self._checksum)
        self.grains += 1

    def finish(self) -> int:
        """Write what follows the grains, then the header and descriptor; returns the size in bytes."""
        self._end_table()
        directory = struct.pack(f"<{len(self._directory)}I", *self._directory)
        directory += bytes(-len(directory) % SECTOR)
        place = self._marked(_DIRECTORY, directory)
        self._marked(_FOOTER, self._header(place))
        self._append(bytes(SECTOR))  # end of the stream
        head = self._header(_AT_THE_END) + self._descriptor().encode().ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0")
        write_at(self._sink, head.ljust(_OVERHEAD * SECTOR, b"\0"), self._base)
        return self._at * SECTOR

    def _end_table(self) -> None:
        if self._table_number >= 0:
            self._directory[self._table_number] = self._marked(_TABLE, struct.pack(f"<{_ENTRIES}I", *self._table))
            self._table = [0] * _ENTRIES

    def _marked(self, kind: int, data: bytes) -> int:
        """Append a marker and, behind it, metadata of whole sectors; returns where the metadata begins."""
        self._append(struct.pack("<QII", len(data) // SECTOR, 0, kind).ljust(SECTOR, b"\0"))
        return self._append(data)

    def _append(self, data: bytes) -> int:
        place = self._at
        self._at += len(data) // SECTOR
        if self._at > _MOST_SECTORS:
            raise OutputError(
                "the disk has too much content for a vmdk, which holds at most 2 TiB",
                hint="make a smaller image, or take another format: -t qcow2 or vhdx",
            )
        write_at(self._sink, data, self._base + place * SECTOR)
        return place

    def _header(self, directory: int) -> bytes:
        return struct.pack(
            "<4sIIQQQQIQQQB4sH",
            b"KDMV",
            _VERSION,
            _FLAGS,
            self._sectors,
            GRAIN // SECTOR,
            1,  # the descriptor's offset
            _DESCRIPTOR_SECTORS,
            _ENTRIES,
            0,  # no second grain directory
            directory,
            _OVERHEAD,
            0,  # was closed
            b"\n \r\n",  # tell whether somebody took the file for text
            _DEFLATE,
        ).ljust(SECTOR, b"\0")

    def _descriptor(self) -> str:
        """Its content id stands for the data; ffffffff would mean "no parent" and fffffffe is reserved."""
        # The geometry of a SCSI disk as VMware makes it: 255 heads and 63 sectors from 1 GiB on.
        heads, per_track = (255, 63) if self._sectors >= 1 << 21 else (64, 32)
        cylinders = min(max(1, self._sectors // (heads * per_track)), 65535)
        return "\n".join(
            (
                "# Disk DescriptorFile",
                "version=1",
                f"CID={self._checksum & 0x7FFFFFFF:08x}",
                "parentCID=ffffffff",
                'createType="streamOptimized"',
                "",
                "# Extent description",
                f'RW {self._sectors} SPARSE "disk.vmdk"',
                "",
                "# The Disk Data Base",
                "#DDB",
                "",
                'ddb.adapterType = "lsilogic"',
                f'ddb.geometry.cylinders = "{cylinders}"',
                f'ddb.geometry.heads = "{heads}"',
                f'ddb.geometry.sectors = "{per_track}"',
                'ddb.virtualHWVersion = "10"',
                "",
            )
        )
