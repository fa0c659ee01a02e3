"""Btrfs read without a kernel: the subvolume that is the system's root, with those that it mounts or that lie in it.

Files that are compressed (zlib, LZO, Zstandard), in the tree or in extents, links, devices and extended attributes.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from dibble.errors import ReadError
from dibble.read import lzo
from dibble.read.btrfs_trees import BAD, Volume
from dibble.read.entry import MOST_SPARSE, Entry, is_kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TOP, _FIRST, _ROOT_DIRECTORY = 5, 256, 6
_INODE_ITEM, _XATTR_ITEM, _DIR_ITEM, _DIR_INDEX, _EXTENT_DATA, _ROOT_ITEM = 1, 24, 84, 96, 108, 132
_NAME_AT = 30  # of a name in an entry of a directory
_INLINE, _REGULAR, _RESERVED = 0, 1, 2
_PLAIN, _ZLIB, _LZO, _ZSTD = range(4)
_INLINE_AT = 21
_LARGEST_EXTENT = 128 << 20  # BTRFS_MAX_EXTENT_SIZE
_LARGEST_PACKED = 128 << 10  # bytes that are compressed together: BTRFS_MAX_UNCOMPRESSED
_LONGEST_LINK = 4096
_PIECE = 4 << 20
_ROOT_NAMES = (b"root", b"@")
"""Subvolumes at the top that distributions have for their root, where nothing says which is the usual one."""


@dataclass(slots=True)
class _Object:
    """What a tree has of one inode."""

    item: bytes = b""
    names: list[tuple[bytes, int, bool]] = field(default_factory=list)
    """Name, inode or subvolume, and whether it is the latter."""
    attributes: dict[str, bytes] = field(default_factory=dict)
    extents: list[tuple[int, bytes]] = field(default_factory=list)


class BtrfsReader:
    """Reads the file system of `size` bytes at `offset` of a raw image; contents go into the directory `scratch`."""

    def __init__(self, image: Path, offset: int, size: int, scratch: Path) -> None:
        self._image = image
        self._offset = offset
        self._size = size
        self._scratch = scratch
        self._trees: dict[int, dict[int, _Object]] = {}
        self._seen: set[int] = set()

    def entries(self) -> Iterator[Entry]:
        """Every entry, a directory before what is in it. Raises ReadError for what is damaged or not known."""
        with self._image.open("rb") as file:
            try:
                volume = Volume(file.fileno(), self._offset, self._size)
                roots, usual = _roots(volume)
                top = self._system_root(volume, roots, usual)
                self._seen.add(top)
                mounted = self._mounted(volume, roots, top)
                yield from self._walk(volume, roots, top, mounted)
            except (struct.error, IndexError, OverflowError, zlib.error, lzo.BadData, RecursionError) as error:
                raise ReadError(f"{BAD}: {error}") from error

    def _tree(self, volume: Volume, roots: dict[int, int], number: int) -> dict[int, _Object]:
        if number not in self._trees:
            if number not in roots:
                raise ReadError(f"{BAD}: there is no subvolume {number}")
            self._trees[number] = _objects(volume, roots[number])
        return self._trees[number]

    def _system_root(self, volume: Volume, roots: dict[int, int], usual: int) -> int:
        """The subvolume that is mounted where no other is asked for; if the top, what it has as a system's root."""
        if usual != _TOP:
            return usual
        names = {name: target for name, target, other in self._tree(volume, roots, _TOP)[_FIRST].names if other}
        inside = {name for name, _, _ in self._tree(volume, roots, _TOP)[_FIRST].names}
        if b"etc" in inside:
            return _TOP
        return next((names[name] for name in _ROOT_NAMES if name in names), _TOP)

    def _mounted(self, volume: Volume, roots: dict[int, int], top: int) -> dict[str, int]:
        """Path → subvolume, by the root's own fstab(5)."""
        text = self._text(volume, roots, top, (b"etc", b"fstab"))
        found = {}
        for line in text.decode("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) < 4 or words[0].startswith("#") or words[2] != "btrfs" or words[1] in ("/", "none"):
                continue
            options = [word.partition("=") for word in words[3].split(",")]
            name = next((value for key, _, value in options if key == "subvol"), "")
            target = self._subvolume(volume, roots, name) if name else None
            if target is not None and target != top:
                found[words[1].strip("/")] = target
        return found

    def _subvolume(self, volume: Volume, roots: dict[int, int], path: str) -> int | None:
        tree, inode = _TOP, _FIRST
        for part in os.fsencode(path).strip(b"/").split(b"/"):
            entry = self._tree(volume, roots, tree).get(inode, _Object())
            match = next(((target, other) for name, target, other in entry.names if name == part), None)
            if match is None:
                return None
            tree, inode = (match[0], _FIRST) if match[1] else (tree, match[0])
        return tree if inode == _FIRST else None

    def _text(self, volume: Volume, roots: dict[int, int], tree: int, path: tuple[bytes, ...]) -> bytes:
        inode = _FIRST
        objects = self._tree(volume, roots, tree)
        for part in path:
            targets = [
                target for name, target, other in objects.get(inode, _Object()).names if name == part and not other
            ]
            if not targets:
                return b""
            inode = targets[0]
        target = self._content(volume, tree, inode, objects[inode]) if inode in objects else None
        return target.read_bytes() if target else b""

    def _walk(self, volume: Volume, roots: dict[int, int], top: int, mounted: dict[str, int]) -> Iterator[Entry]:
        todo = [("", top, _FIRST)]
        contents: dict[tuple[int, int], Path | None] = {}
        folders: set[tuple[int, int]] = {(top, _FIRST)}
        while todo:
            path, tree, number = todo.pop()
            if path in mounted and number != _FIRST and mounted[path] not in self._seen:
                tree, number = mounted[path], _FIRST
                self._seen.add(tree)
            found = self._tree(volume, roots, tree).get(number)
            if found is None or len(found.item) < 160:
                raise ReadError(f"{BAD}: there is no inode {number} for /{path}")
            uid, gid, mode, rdev = struct.unpack_from("<44x3IQ", found.item)
            seconds, rest = struct.unpack_from("<136xqI", found.item)
            kind = stat.S_IFMT(mode)
            place = (tree, number)
            if kind == stat.S_IFREG and place not in contents:
                contents[place] = self._content(volume, tree, number, found)
            yield Entry(
                path,
                mode,
                uid,
                gid,
                tree << 64 | number,
                mtime=seconds + rest / 1e9,
                content=contents.get(place),
                link=os.fsdecode(_link(found, number)) if kind == stat.S_IFLNK else "",
                device=(rdev >> 20, rdev & 0xFFFFF) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0),
                attributes=found.attributes,
            )
            if kind != stat.S_IFDIR:
                continue
            below = []
            for name, target, other in found.names:
                if not name or b"/" in name or b"\0" in name:
                    raise ReadError(f"{BAD}: a directory has the name {name!r}")
                if other and target in self._seen:
                    continue  # it is mounted elsewhere, or this one itself
                goal = (target, _FIRST) if other else (tree, target)
                if other:
                    self._seen.add(target)
                if other or _is_folder(self._tree(volume, roots, tree).get(target)):
                    if goal in folders:
                        raise ReadError(f"{BAD}: the directory /{path}/{os.fsdecode(name)} is in two places")
                    folders.add(goal)
                below.append((f"{path}/{os.fsdecode(name)}".lstrip("/"), *goal))
            todo += reversed(below)

    def _content(self, volume: Volume, tree: int, number: int, found: _Object) -> Path | None:
        (size,) = struct.unpack_from("<16xQ", found.item)
        if not size:
            return None
        if size > MOST_SPARSE * self._size:
            raise ReadError(f"{BAD}: the file of inode {number} has {size} bytes")
        target = self._scratch / f"inode-{tree}-{number}"
        with target.open("wb") as file:
            file.truncate(size)
            for at, data in found.extents:
                _write_extent(volume, file, at, data, size)
        return target


def _roots(volume: Volume) -> tuple[dict[int, int], int]:
    """Subvolume → address of its tree; and the subvolume that is mounted where none is named."""
    found: dict[int, int] = {}
    usual = _TOP
    for (where, kind, _), data in volume.items(volume.root):
        if kind == _ROOT_ITEM and (where == _TOP or where >= _FIRST):
            (found[where],) = struct.unpack_from("<Q", data, 176)
        elif kind == _DIR_ITEM and where == _ROOT_DIRECTORY:
            usual = next((target for name, target, _ in _entries(data) if name == b"default"), usual)
    return found, usual


def _objects(volume: Volume, root: int) -> dict[int, _Object]:
    found: dict[int, _Object] = defaultdict(_Object)
    for (where, kind, offset), data in volume.items(root):
        if kind == _INODE_ITEM:
            found[where].item = data
        elif kind == _DIR_INDEX:
            found[where].names += list(_entries(data))
        elif kind == _XATTR_ITEM:
            for name, value in _attributes(data):
                if is_kept(name):
                    found[where].attributes[name] = value
        elif kind == _EXTENT_DATA:
            found[where].extents.append((offset, data))
    return dict(found)


def _entries(data: bytes) -> Iterator[tuple[bytes, int, bool]]:
    at = 0
    while at < len(data):
        target, kind, value_size, name_size = struct.unpack_from("<QB16xHH", data, at)
        begin = at + _NAME_AT
        at = begin + name_size + value_size
        if at > len(data):
            raise ReadError(f"{BAD}: a name in a directory is cut off")
        yield data[begin : begin + name_size], target, kind == _ROOT_ITEM


def _attributes(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(data):
        value_size, name_size = struct.unpack_from("<25xHH", data, at)
        begin = at + _NAME_AT
        middle, at = begin + name_size, begin + name_size + value_size
        if at > len(data):
            raise ReadError(f"{BAD}: an extended attribute is cut off")
        yield os.fsdecode(data[begin:middle]), data[middle:at]


def _is_folder(found: _Object | None) -> bool:
    return found is not None and len(found.item) >= 56 and stat.S_ISDIR(struct.unpack_from("<52xI", found.item)[0])


def _link(found: _Object, number: int) -> bytes:
    if len(found.extents) != 1:
        raise ReadError(f"{BAD}: the symbolic link {number} has no target")
    data = found.extents[0][1]
    (size, packed) = struct.unpack_from("<8xQB", data)
    if size > _LONGEST_LINK:
        raise ReadError(f"{BAD}: the symbolic link {number} has {size} bytes")
    # mkfs.btrfs --rootdir stores the byte at which the kernel takes a target to end, too.
    return _unpacked(data[_INLINE_AT:], packed, size, 4096).partition(b"\0")[0]


def _write_extent(volume: Volume, file: IO[bytes], at: int, data: bytes, size: int) -> None:
    """Put what an item tells of a file's content to its place; what is beyond the file's end is left out."""
    whole, packed, kind = struct.unpack_from("<8xQB3xB", data)
    room = size - at
    if kind == _RESERVED or room <= 0:
        return
    file.seek(at)
    if kind == _INLINE:
        if whole > _LARGEST_PACKED:
            raise ReadError(f"{BAD}: a file has {whole} bytes in the tree")
        file.write(_unpacked(data[_INLINE_AT:], packed, min(whole, room), volume.sector_size))
        return
    logical, stored, begin, count = struct.unpack_from("<4Q", data, _INLINE_AT)
    if kind != _REGULAR or count > _LARGEST_EXTENT or stored > _LARGEST_EXTENT:
        raise ReadError(f"{BAD}: an extent is not of a known kind")
    count = min(count, room)
    if not logical:
        return  # a hole
    if packed:
        if whole > _LARGEST_PACKED or begin + count > whole:
            raise ReadError(f"{BAD}: a compressed extent has {whole} bytes")
        # What is beyond the file's end need not be there: such an extent is as long as whole sectors.
        text = _unpacked(volume.bytes_at(logical, stored), packed, begin + count, volume.sector_size)
        file.write(text[begin:])
        return
    for place in range(0, count, _PIECE):
        file.write(volume.bytes_at(logical + begin + place, min(_PIECE, count - place)))


def _unpacked(data: bytes, how: int, size: int, sector: int) -> bytes:
    """The first `size` bytes of compressed content."""
    if how == _PLAIN:
        found = data[:size]
    elif how == _ZLIB:
        found = zlib.decompressobj().decompress(data, size)
    elif how == _LZO:
        found = lzo.segments(data, size, sector)
    elif how == _ZSTD:
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                found = reader.read(size)
        except zstandard.ZstdError as error:
            raise ReadError(f"{BAD}: {error}") from error
    else:
        raise ReadError(f"the btrfs file system has files that are compressed in an unknown way, {how}")
    if len(found) < size:
        raise ReadError(f"{BAD}: compressed content is cut off")
    return found
