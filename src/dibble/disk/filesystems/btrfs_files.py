"""The trees of files of a btrfs file system: one for each subvolume, in one pass, with the content of the files."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.disk.filesystems import btrfs_format as on_disk
from dibble.disk.filesystems.btrfs_format import directory_entry, inode_item, moment, name_hash, reference_hash
from dibble.disk.filesystems.btrfs_space import Root, TreeWriter
from dibble.errors import OutputError
from dibble.tree.inodes import FILE_TYPES, attributes, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dibble.disk.filesystems.btrfs_format import Key
    from dibble.disk.filesystems.btrfs_space import Space
    from dibble.tree.inodes import Inode

_XATTR_KIND = 8
_FIRST_INDEX = 2  # of an entry in a directory
_INLINE_FILE = 2048  # bytes; the kernel's own limit for content beside its inode (max_inline, btrfs(5))
_PIECE = 128 << 10  # bytes that are compressed at once
_LONGEST = 128 << 20  # bytes of an extent
_REFERENCES = 2000  # bytes of names that one item takes before each name gets one of its own
_ZLIB, _ZSTD = 1, 3  # numbers of compressions
_ZSTD_WINDOW = 17  # log2 of bytes: what the kernel decompresses


@dataclass(slots=True, eq=False)
class Volume:
    """A subvolume, or the top of all. `root` is its directory; `place` is (tree, directory, index, name) of its entry.

    `inodes` are in the order of their numbers, `references` (directory, index, name) of each by number.
    """

    tree: int
    root: Inode
    uuid: bytes
    read_only: bool = False
    place: tuple[int, int, int, bytes] | None = None
    inodes: list[Inode] = field(default_factory=list)
    references: dict[int, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    written: Root | None = None


@dataclass(frozen=True, slots=True)
class DataExtent:
    logical: int
    length: int
    tree: int
    inode: int
    offset: int


def number_inodes(volumes: list[Volume]) -> None:
    """Give every inode its number in its volume. Raises OutputError for a hard link between volumes."""
    of_root = {id(volume.root): volume for volume in volumes}
    owner: dict[int, Volume] = {}
    for volume in volumes:
        volume.root.number = on_disk.FIRST_FREE
        volume.inodes = [volume.root]
    for volume in volumes:
        waiting = [volume.root]
        while waiting:
            folder = waiting.pop()
            below = []
            for index, (name, inode) in enumerate(folder.entries, _FIRST_INDEX):
                if id(inode) in of_root:
                    of_root[id(inode)].place = (volume.tree, folder.number, index, name)
                    continue
                known = owner.setdefault(id(inode), volume)
                if known is not volume:
                    raise OutputError(
                        f"{os.fsdecode(inode.path)} and {os.fsdecode(folder.path + b'/' + name)} are hard links to one"
                        " file in two subvolumes, which btrfs cannot hold",
                        hint="let the element that makes them copy the file, or put both into one subvolume",
                    )
                if not inode.number:
                    inode.number = on_disk.FIRST_FREE + len(volume.inodes)
                    volume.inodes.append(inode)
                    if inode.kind == stat.S_IFDIR:
                        below.append(inode)
                volume.references.setdefault(inode.number, []).append((folder.number, index, name))
            waiting.extend(reversed(below))


class FilesWriter:
    """Writes the trees of volumes; `extents` and `sums` are what they lead to, in the order of addresses."""

    def __init__(self, space: Space, volumes: list[Volume], epoch: int, compression: Callable[[bytes], bytes] | None,
                 compression_number: int) -> None:  # fmt: skip
        self._space = space
        self._form = space.form
        self._volumes = {id(volume.root): volume for volume in volumes}
        self._born = moment(epoch * 1_000_000_000)
        self._compression = compression
        self._compression_number = compression_number
        self._expected = sum(
            -(-inode.size // self._form.sector) * self._form.sector
            for volume in volumes
            for inode in volume.inodes
            if inode.kind == stat.S_IFREG and inode.size > _INLINE_FILE
        )
        self.extents: list[DataExtent] = []
        self.sums: list[tuple[int, bytearray]] = []
        self._sums_end = -1

    def write(self, volume: Volume) -> None:
        tree = TreeWriter(self._space, volume.tree)
        for inode in volume.inodes:
            for key, data in self._items(volume, inode):
                tree.add(key, data)
        volume.written = tree.finish()

    def _items(self, volume: Volume, inode: Inode) -> Iterator[tuple[Key, bytes]]:
        number = inode.number
        body: list[tuple[Key, bytes]] = []
        size = stored = 0
        if inode.kind == stat.S_IFDIR:
            size = sum(2 * len(name) for name, _ in inode.entries)
            body = list(self._entries(inode))
        elif inode.kind == stat.S_IFREG:
            size = inode.size
            body, stored = self._content(volume, inode)
        elif inode.kind == stat.S_IFLNK:
            target = os.readlink(inode.path)  # noqa: PTH115 - bytes
            size = stored = len(target)
            if len(target) >= self._form.sector:
                raise self._refused(inode, f"is a symbolic link to a name of {len(target)} bytes")
            body = [((number, on_disk.EXTENT_DATA, 0), self._inline(target, len(target), 0))]
        rdev = 0
        if inode.kind in (stat.S_IFCHR, stat.S_IFBLK):
            rdev = os.major(inode.rdev) << 20 | os.minor(inode.rdev)  # the kernel's own dev_t
        links = 1 if inode.kind == stat.S_IFDIR else inode.names
        times = (moment(inode.mtime), self._born)
        generation = self._form.generation
        yield (
            (number, on_disk.INODE_ITEM, 0),
            inode_item(generation, size, stored, links, inode.uid, inode.gid, inode.mode, rdev, times),
        )
        if inode is volume.root:
            yield (number, on_disk.INODE_REF, number), struct.pack("<QH", 0, 2) + b".."
        else:
            yield from _references(number, volume.references[number])
        yield from self._attributes(inode)
        yield from body

    def _entries(self, folder: Inode) -> Iterator[tuple[Key, bytes]]:
        by_hash: dict[int, bytes] = {}
        listed = []
        for index, (name, inode) in enumerate(folder.entries, _FIRST_INDEX):
            volume = self._volumes.get(id(inode))
            if volume is not None:
                target = (volume.tree, on_disk.ROOT_ITEM, on_disk.MAXIMUM)
            else:
                target = (inode.number, on_disk.INODE_ITEM, 0)
            data = directory_entry(target, self._form.generation, name, FILE_TYPES[inode.kind])
            key = name_hash(name)
            by_hash[key] = by_hash.get(key, b"") + data
            listed.append(((folder.number, on_disk.DIR_INDEX, index), data))
        for key in sorted(by_hash):
            yield (folder.number, on_disk.DIR_ITEM, key), by_hash[key]
        yield from listed

    def _attributes(self, inode: Inode) -> Iterator[tuple[Key, bytes]]:
        if not inode.path:  # a directory of ours, above the tree
            return
        by_hash: dict[int, bytes] = {}
        for text, value in attributes(inode.path):
            name = os.fsencode(text)
            data = directory_entry((0, 0, 0), self._form.generation, name, _XATTR_KIND, value)
            key = name_hash(name)
            by_hash[key] = by_hash.get(key, b"") + data
            if len(by_hash[key]) + on_disk.ITEM > self._form.room:
                raise self._refused(inode, f"has the attribute {text} of {len(value)} bytes")
        for key in sorted(by_hash):
            yield (inode.number, on_disk.XATTR_ITEM, key), by_hash[key]

    def _refused(self, inode: Inode, what: str) -> OutputError:
        return OutputError(
            f"{os.fsdecode(inode.path)} {what}, for which btrfs has no place",
            hint="let the element that makes it do with less, or take another file system",
        )

    def _inline(self, data: bytes, size: int, compression: int) -> bytes:
        return struct.pack("<QQBBHB", self._form.generation, size, compression, 0, 0, 0) + data

    def _regular(self, logical: int, stored: int, length: int, compression: int) -> bytes:
        head = struct.pack("<QQBBHB", self._form.generation, length, compression, 0, 0, 1)
        return head + struct.pack("<4Q", logical, stored, 0, length)

    def _content(self, volume: Volume, inode: Inode) -> tuple[list[tuple[Key, bytes]], int]:
        """A file's items, and the bytes that it is said to take."""
        number = inode.number
        if 0 < inode.size <= min(_INLINE_FILE, self._form.sector - 1):
            data = b"".join(part for _, part in stretches(inode.path, inode.size))
            if data:
                packed = self._compression(data) if self._compression else data
                if len(packed) < len(data):
                    item = self._inline(packed, len(data), self._compression_number)
                else:
                    item = self._inline(data, len(data), 0)
                return [((number, on_disk.EXTENT_DATA, 0), item)], len(data)
        # (offset, address, bytes on disk, bytes, compression), neighbours joined
        found: list[tuple[int, int, int, int, int]] = []
        for offset, data in stretches(inode.path, inode.size):
            for extent in self._stretch(offset, data):
                last = found[-1] if found else None
                if (
                    last
                    and last[4] == extent[4] == 0
                    and last[0] + last[3] == extent[0]
                    and last[1] + last[2] == extent[1]
                    and last[2] + extent[2] <= _LONGEST
                ):
                    length = last[2] + extent[2]
                    found[-1] = (last[0], last[1], length, length, 0)
                else:
                    found.append(extent)
        self._expected = max(0, self._expected - -(-inode.size // self._form.sector) * self._form.sector)
        items = []
        end = 0
        for offset, logical, stored, length, compression in found:
            if offset > end:
                items += self._hole(number, end, offset)
            items.append(((number, on_disk.EXTENT_DATA, offset), self._regular(logical, stored, length, compression)))
            self.extents.append(DataExtent(logical, stored, volume.tree, number, offset))
            end = offset + length
        whole = -(-inode.size // self._form.sector) * self._form.sector
        if whole > end:
            items += self._hole(number, end, whole)
        return items, sum(extent[3] for extent in found)

    def _hole(self, number: int, begin: int, end: int) -> list[tuple[Key, bytes]]:
        """What says that there is nothing; newer file systems do without."""
        if self._form.incompat & on_disk.NO_HOLES:
            return []
        return [((number, on_disk.EXTENT_DATA, begin), self._regular(0, 0, end - begin, 0))]

    def _stretch(self, offset: int, data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        sector = self._form.sector
        if len(data) % sector:
            data += bytes(-len(data) % sector)
        if self._compression is None:
            yield from self._plain(offset, data)
            return
        for begin in range(0, len(data), _PIECE):
            piece = data[begin : begin + _PIECE]
            packed = self._compression(piece)
            packed += bytes(-len(packed) % sector)
            if len(packed) >= len(piece):
                yield from self._plain(offset + begin, piece)
                continue
            logical = self._space.take_whole(len(packed), self._expected)
            self._store(logical, packed)
            yield offset + begin, logical, len(packed), len(piece), self._compression_number

    def _plain(self, offset: int, data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        view = memoryview(data)
        while view:
            logical, count = self._space.take_data(len(view), self._expected)
            self._store(logical, bytes(view[:count]) if count < len(data) else data)
            yield offset, logical, count, count, 0
            view, offset = view[count:], offset + count

    def _store(self, logical: int, data: bytes) -> None:
        self._space.write_data(logical, data)
        sums = on_disk.digests(self._form, data, self._form.sector)
        if self._sums_end == logical:
            self.sums[-1][1].extend(sums)
        else:
            self.sums.append((logical, bytearray(sums)))
        self._sums_end = logical + len(data)


def _references(number: int, references: list[tuple[int, int, bytes]]) -> Iterator[tuple[Key, bytes]]:
    """The names of an inode: those in one directory together, or one by one where they are too many."""
    by_folder: dict[int, list[tuple[int, bytes]]] = {}
    for folder, index, name in references:
        by_folder.setdefault(folder, []).append((index, name))
    rest: dict[int, bytes] = {}
    for folder in sorted(by_folder):
        data = b"".join(struct.pack("<QH", index, len(name)) + name for index, name in by_folder[folder])
        if len(data) <= _REFERENCES:
            yield (number, on_disk.INODE_REF, folder), data
            continue
        for index, name in by_folder[folder]:
            key = reference_hash(folder, name)
            rest[key] = rest.get(key, b"") + struct.pack("<QQH", folder, index, len(name)) + name
    for key in sorted(rest):
        yield (number, on_disk.INODE_EXTREF, key), rest[key]


def compressor(text: str) -> tuple[Callable[[bytes], bytes] | None, int]:
    """What compresses one piece as `--compress` of mkfs.btrfs says, and its number. Raises ValueError."""
    name, _, level = text.partition(":")
    if name in ("no", "none"):
        return None, 0
    if level and not level.isdigit():
        raise ValueError(f'"{level}" is no level of compression')
    if name == "zlib":
        strength = int(level or 3)
        if not 1 <= strength <= 9:
            raise ValueError("zlib has the levels 1 to 9")
        return lambda data: zlib.compress(data, strength), _ZLIB
    if name == "zstd":
        import zstandard

        strength = int(level or 3)
        if not 1 <= strength <= 15:
            raise ValueError("zstd has the levels 1 to 15 in btrfs")
        parameters = zstandard.ZstdCompressionParameters.from_level(
            strength, window_log=_ZSTD_WINDOW, source_size=_PIECE
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compress, _ZSTD
    raise ValueError(f'compression "{name}" is not written here; there are zlib and zstd')
