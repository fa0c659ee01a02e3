"""A compressed qcow2 file from a raw one, on all processors and yet always the same bytes.

`qemu-img convert -c` is one or the other: in order it compresses on one processor, with `-W` on all, but then places
clusters as they are done. Here clusters are compressed in parallel and placed in order. Source of every number: QEMU
docs/interop/qcow2.txt (version 3).
"""

from __future__ import annotations

import os
import struct
import threading
from typing import TYPE_CHECKING

from dibble.outputs.pieces import PIECE, opened, worked
from dibble.outputs.qcow2_cluster import CLUSTER, CLUSTER_BITS, SECTOR, Compressor
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.events import RunningActivity
    from dibble.outputs.qcow2_ahead import Ahead


_INCOMPATIBLE_COMPRESSION_TYPE = 1 << 3
_ZSTD = 1
_HEADER_LENGTH = 112
_COPIED = 1 << 63  # exactly one reference: may be written in place
_COMPRESSED = 1 << 62
_OFFSET_BITS = 62 - (CLUSTER_BITS - 8)  # of a compressed cluster's entry; the sector count has the bits above


def write_qcow2(
    raw: Path,
    target: Path,
    activity: RunningActivity | None = None,
    *,
    threads: int = 0,
    ahead: Ahead | None = None,
) -> None:
    """Write `target`, compressed with zstd, from the raw file; holes and zeros take no room.

    `threads` 0 means one a processor, `ahead` has compressed a part already; the result does not depend on either.
    Holds some MiB a thread. Raises OSError.
    """
    if ahead:
        ahead.stop()
    with opened(raw, target) as (source, sink):
        size = os.fstat(source).st_size
        image = _Image(sink, size)
        for start, clusters in _compressed(source, size, threads, ahead):
            for number, data in clusters:
                image.add(number, data)
            if activity:
                activity.progress(min(start + PIECE, size), size, "bytes")
        image.finish()


def _compressed(
    source: int, size: int, threads: int, ahead: Ahead | None
) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """For each piece, in order, its offset and (number, content) of its clusters that are not all zeros."""
    own = threading.local()

    def compress(start: int, data: bytes) -> list[tuple[int, bytes]]:
        compressor: Compressor | None = getattr(own, "compressor", None)
        if compressor is None:
            compressor = own.compressor = Compressor()
        found = []
        for offset in range(0, len(data), CLUSTER):
            plain = data[offset : offset + CLUSTER].ljust(CLUSTER, b"\0")
            number = (start + offset) // CLUSTER
            packed = (ahead.take(number, plain) if ahead else None) or compressor.compress(plain)
            if packed is not None:
                found.append((number, packed))
        return found

    return worked(source, size, compress, threads=threads)


class _Image:
    """Places clusters one after another and knows where they lie; the tables follow the data, the header comes last.

    Layout: header | L1 table | data | L2 tables | refcount blocks | refcount table.
    """

    def __init__(self, sink: int, size: int) -> None:
        self._sink = sink
        self._size = size + -size % SECTOR
        per_table = CLUSTER // 8
        self._l1: list[int] = [0] * max(1, -(-self._size // (CLUSTER * per_table)))
        self._l1_offset = CLUSTER
        self._tables: dict[int, list[int]] = {}
        self._refcounts: list[int] = []
        self._tail = 0  # where the next compressed cluster may begin; 0: at a cluster of its own
        self._allocate(1 + _clusters(8 * len(self._l1)))

    def add(self, number: int, data: bytes) -> None:
        """Store the guest's cluster `number`; `data` of the size of a cluster is plain, else a zstd frame."""
        per_table = CLUSTER // 8
        table = self._tables.setdefault(number // per_table, [0] * per_table)
        if len(data) == CLUSTER:
            offset = self._allocate(1)
            table[number % per_table] = offset | _COPIED
        else:
            offset = self._place(len(data))
            more_sectors = (offset + len(data) - 1) // SECTOR - offset // SECTOR
            table[number % per_table] = _COMPRESSED | more_sectors << _OFFSET_BITS | offset
        self._write(offset, data)

    def finish(self) -> None:
        for index, table in self._tables.items():
            offset = self._allocate(1)
            self._l1[index] = offset | _COPIED
            self._write(offset, struct.pack(f">{len(table)}Q", *table))
        self._write(self._l1_offset, struct.pack(f">{len(self._l1)}Q", *self._l1))
        table_offset, table_clusters = self._write_refcounts()
        self._write(0, self._header(table_offset, table_clusters))
        os.ftruncate(self._sink, len(self._refcounts) * CLUSTER)

    def _allocate(self, count: int) -> int:
        """The offset of `count` new clusters, each with one reference."""
        offset = len(self._refcounts) * CLUSTER
        self._refcounts.extend([1] * count)
        return offset

    def _place(self, length: int) -> int:
        """The offset of `length` bytes after the last compressed cluster, or in a new one when they do not fit."""
        offset = self._tail
        room = -offset % CLUSTER
        if length <= room:
            self._refcounts[offset // CLUSTER] += 1
        elif room and offset + room == len(self._refcounts) * CLUSTER:  # the next cluster is free: go on into it
            self._refcounts[offset // CLUSTER] += 1
            self._allocate(1)
        else:
            offset = self._allocate(1)
        self._tail = offset + length
        return offset

    def _write_refcounts(self) -> tuple[int, int]:
        """Write the reference counts, those of their own clusters too; returns offset and clusters of the table."""
        per_block = CLUSTER // 2  # 16 bits each
        blocks, table_clusters = 0, 1
        while True:
            total = len(self._refcounts) + blocks + table_clusters
            needed = -(-total // per_block)
            if needed == blocks and _clusters(8 * blocks) == table_clusters:
                break
            blocks, table_clusters = needed, _clusters(8 * needed)
        first = self._allocate(blocks)
        table_offset = self._allocate(table_clusters)
        for number in range(blocks):
            counts = self._refcounts[number * per_block : (number + 1) * per_block]
            self._write(first + number * CLUSTER, struct.pack(f">{len(counts)}H", *counts))
        offsets = [first + number * CLUSTER for number in range(blocks)]
        self._write(table_offset, struct.pack(f">{blocks}Q", *offsets))
        return table_offset, table_clusters

    def _header(self, table_offset: int, table_clusters: int) -> bytes:
        return struct.pack(
            ">4sIQIIQIIQQIIQQQQIIB7xII",
            b"QFI\xfb",
            3,  # version
            0,  # no backing file: offset
            0,  # and length
            CLUSTER_BITS,
            self._size,
            0,  # not encrypted
            len(self._l1),
            self._l1_offset,
            table_offset,
            table_clusters,
            0,  # no snapshots: number
            0,  # and offset
            _INCOMPATIBLE_COMPRESSION_TYPE,
            0,  # compatible features
            0,  # autoclear features
            4,  # reference counts have 2**4 bits
            _HEADER_LENGTH,
            _ZSTD,
            0,  # no header extensions
            0,
        )

    def _write(self, offset: int, data: bytes) -> None:
        write_at(self._sink, data, offset)


def _clusters(length: int) -> int:
    return -(-length // CLUSTER)
