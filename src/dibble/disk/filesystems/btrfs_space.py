"""The space of a btrfs file system: chunks of the device, and blocks of trees in them."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dibble.disk.filesystems import btrfs_format as on_disk
from dibble.disk.filesystems.btrfs_format import DATA, DUP, HEADER, ITEM, POINTER, SYSTEM, Format, Full, digests
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dibble.disk.filesystems.btrfs_format import Item, Key

_MIB = 1 << 20
_STRIPE = 64 << 10
_RESERVED = _MIB  # bytes at the beginning that no chunk may lie in
_LARGEST_DATA, _LARGEST_METADATA = 1 << 30, 256 * _MIB
_LEAST_METADATA, _LEAST_DATA = 4 * _MIB, 8 * _MIB
_SYSTEM_SIZE = 4 * _MIB
_BATCH = 256  # blocks that wait for their checksums


@dataclass(slots=True)
class Chunk:
    """A piece of the logical space. `kind` has the profile in it too; `used` is counted from the beginning."""

    kind: int
    logical: int
    length: int
    physical: tuple[int, ...]
    used: int = 0

    def item(self, form: Format) -> bytes:
        head = struct.pack(
            "<4Q3I2H", self.length, 2, _STRIPE, self.kind, _STRIPE, _STRIPE, form.sector, len(self.physical), 1
        )
        return head + b"".join(struct.pack("<QQ16s", 1, offset, form.device_uuid) for offset in self.physical)


class Space:
    """Takes chunks from the front of the device on, around the copies of the superblock, and writes into them."""

    def __init__(self, descriptor: int, base: int, form: Format, profiles: tuple[int, int]) -> None:
        self.form = form
        self.chunks: list[Chunk] = []
        self._descriptor = descriptor
        self._base = base
        self._data_profile, self._profile = profiles
        self._free = list(self._regions())
        self._next = _MIB
        self._system = self._chunk(SYSTEM, _SYSTEM_SIZE, _SYSTEM_SIZE)
        self._metadata = self._chunk(on_disk.METADATA, self._metadata_size(), _LEAST_METADATA)
        self._data: Chunk | None = None
        self._blocks = bytearray()
        self._places: list[int] = []
        self._is_dry = False
        self.tree_blocks: list[tuple[int, int, int]] = []
        """Logical address, level and tree of every block of a tree."""

    def _regions(self) -> Iterable[list[int]]:
        begin, total = _RESERVED, self.form.total // _STRIPE * _STRIPE
        for copy in on_disk.SUPER_COPIES[1:]:
            if copy < total:
                yield [begin, copy]
                begin = copy + _MIB
        if begin < total:
            yield [begin, total]

    def _metadata_size(self) -> int:
        return min(_LARGEST_METADATA, max(_LEAST_METADATA, self.form.total // 10 // _MIB * _MIB))

    def _chunk(self, kind: int, wanted: int, least: int) -> Chunk:
        """A new chunk of at most `wanted` bytes. Raises Full when there is not room for `least`."""
        profile = self._data_profile if kind == DATA else self._profile
        copies = 2 if profile & DUP else 1
        for region in self._free:
            length = min(wanted, (region[1] - region[0]) // copies // _STRIPE * _STRIPE)
            if length >= least:
                physical = tuple(region[0] + number * length for number in range(copies))
                region[0] += copies * length
                chunk = Chunk(kind | profile, self._next, length, physical)
                self._next += length + _STRIPE  # a gap, for no extent and no item may go on in the next chunk
                self.chunks.append(chunk)
                return chunk
        raise Full

    def take_data(self, size: int, expected: int) -> tuple[int, int]:
        """(logical address, bytes) of at most `size` bytes; `expected` says how much data is still to come."""
        if self._data is None or self._data.used == self._data.length:
            self._new_data(expected, size)
        chunk = self._data
        assert chunk is not None
        count = min(size, chunk.length - chunk.used)
        logical = chunk.logical + chunk.used
        chunk.used += count
        return logical, count

    def take_whole(self, size: int, expected: int) -> int:
        """The logical address of `size` bytes in a row."""
        if self._data is None or self._data.used + size > self._data.length:
            self._new_data(expected, size)
        return self.take_data(size, expected)[0]

    def _new_data(self, expected: int, size: int) -> None:
        wanted = -(-max(expected, size) // _MIB) * _MIB
        most = min(_LARGEST_DATA, max(_LEAST_DATA, self.form.total // 10 // _MIB * _MIB))
        self._data = self._chunk(DATA, min(wanted, most), max(size, _STRIPE) if size <= 2 * _STRIPE else _STRIPE)

    def write_data(self, logical: int, data: bytes | memoryview) -> None:
        """Write into the data chunk taken from last."""
        assert self._data is not None
        for start in self._data.physical:
            self._put(start + logical - self._data.logical, data)

    def _put(self, physical: int, data: bytes | memoryview) -> None:
        write_at(self._descriptor, data, self._base + physical)

    @contextlib.contextmanager
    def dry(self) -> Iterator[None]:
        """Within it blocks of trees are taken, but not written; in the end none of them has been taken."""
        chunks, free, following = [replace(chunk) for chunk in self.chunks], [*map(list, self._free)], self._next
        system, metadata, blocks = self._system, self._metadata, len(self.tree_blocks)
        self._is_dry = True
        try:
            yield
        finally:
            self._is_dry = False
            del self.chunks[len(chunks) :]
            for chunk, before in zip(self.chunks, chunks, strict=True):
                chunk.used = before.used
            self._free, self._next, self._system, self._metadata = free, following, system, metadata
            del self.tree_blocks[blocks:]

    def take_block(self, tree: int, level: int) -> tuple[Chunk, int]:
        chunk = self._system if tree == on_disk.CHUNK_TREE else self._metadata
        if chunk.used + self.form.node > chunk.length:
            if chunk is self._system:
                raise Full
            self._metadata = self._chunk(on_disk.METADATA, self._metadata_size(), _LEAST_METADATA)
            chunk = self._metadata
        logical = chunk.logical + chunk.used
        chunk.used += self.form.node
        self.tree_blocks.append((logical, level, tree))
        return chunk, logical

    def put_block(self, chunk: Chunk, logical: int, block: bytes | bytearray) -> None:
        if self._is_dry:
            return
        self._blocks += block
        self._places.append(len(chunk.physical))
        self._places += [start + logical - chunk.logical for start in chunk.physical]
        if len(self._blocks) >= _BATCH * self.form.node:
            self.flush()

    def flush(self) -> None:
        node, size = self.form.node, self.form.csum_size
        sums = digests(self.form, self._blocks, node, on_disk.CSUM_SIZE)
        places = iter(self._places)
        for number in range(len(self._blocks) // node):
            begin = number * node
            self._blocks[begin : begin + size] = sums[number * size : number * size + size]
            block = bytes(self._blocks[begin : begin + node])
            for _ in range(next(places)):
                self._put(next(places), block)
        self._blocks = bytearray()
        self._places = []

    def write_super(self, superblock: bytes) -> None:
        """Write the superblock and its copies, each with its own address and checksum."""
        for place in on_disk.SUPER_COPIES:
            if place + on_disk.SUPER_SIZE <= self.form.total:
                data = bytearray(superblock)
                struct.pack_into("<Q", data, 48, place)
                data[: on_disk.CSUM_SIZE] = digests(self.form, data, len(data), on_disk.CSUM_SIZE).ljust(32, b"\0")
                self._put(place, bytes(data))


@dataclass(frozen=True, slots=True)
class Root:
    """A written tree: its topmost block, the level of that, and the number of blocks."""

    logical: int
    level: int
    blocks: int


class TreeWriter:
    """Writes one tree, from items that come in the order of their keys."""

    def __init__(self, space: Space, tree: int) -> None:
        self._space = space
        self._form = space.form
        self._tree = tree
        self._items: list[Item] = []
        self._size = 0
        self._leaves: list[tuple[Key, int]] = []
        self._count = 0

    def add(self, key: Key, data: bytes) -> None:
        size = ITEM + len(data)
        assert size <= self._form.room, "an item must fit into a block"
        if self._size + size > self._form.room:
            self._write_leaf()
        self._items.append((key, data))
        self._size += size

    def _write_leaf(self) -> None:
        chunk, logical = self._space.take_block(self._tree, 0)
        block = bytearray(self._form.node)
        block[:HEADER] = on_disk.header(self._form, logical, self._tree, len(self._items), 0)
        end = self._form.room
        at = HEADER
        for key, data in self._items:
            end -= len(data)
            struct.pack_into("<QBQII", block, at, *key, end, len(data))
            block[HEADER + end : HEADER + end + len(data)] = data
            at += ITEM
        self._space.put_block(chunk, logical, block)
        self._leaves.append((self._items[0][0] if self._items else (0, 0, 0), logical))
        self._count += 1
        self._items, self._size = [], 0

    def finish(self) -> Root:
        if self._items or not self._leaves:
            self._write_leaf()
        children, level = self._leaves, 0
        most = self._form.room // POINTER
        while len(children) > 1:
            level += 1
            parents = []
            for begin in range(0, len(children), most):
                part = children[begin : begin + most]
                chunk, logical = self._space.take_block(self._tree, level)
                block = bytearray(self._form.node)
                block[:HEADER] = on_disk.header(self._form, logical, self._tree, len(part), level)
                for number, (key, child) in enumerate(part):
                    at = HEADER + number * POINTER
                    struct.pack_into("<QBQQQ", block, at, *key, child, self._form.generation)
                self._space.put_block(chunk, logical, block)
                parents.append((part[0][0], logical))
                self._count += 1
            children = parents
        return Root(children[0][1], level, self._count)
