"""A btrfs file system from a tree and the superblock of an empty one: all trees, and what leads to them."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from dibble.disk.filesystems import btrfs_format as on_disk
from dibble.disk.filesystems.btrfs_files import FilesWriter, Volume, compressor, number_inodes
from dibble.disk.filesystems.btrfs_format import DUP, Unsupported, directory_entry, inode_item, moment, name_hash
from dibble.disk.filesystems.btrfs_space import Chunk, Root, Space, TreeWriter
from dibble.errors import OutputError
from dibble.tree.inodes import Inode, inodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dibble.disk.filesystems.btrfs_format import Format, Item

_PROFILES = 0x7F8  # all bits of profiles in a chunk's type
_SUPER_CHUNKS_AT, _SUPER_BACKUPS_AT = 811, 2859
_DIRECTORY = 0o40755
_SUMS_IN_ITEM = 3000  # bytes at the most; an item must leave room for a second in its block


@dataclass(frozen=True, slots=True)
class Subvolume:
    """What is to become a subvolume: the directory `path` of the tree, relative, empty for the tree itself.

    It stays where it is, or stands at the top of the file system under `name`, with an empty directory in its place.
    """

    path: str
    name: str = ""
    read_only: bool = False
    is_default: bool = False


def fill(  # noqa: PLR0917 - everything that a file system is made from
    descriptor: int,
    base: int,
    empty: Path,
    content: Path,
    subvolumes: Sequence[Subvolume],
    compression: str,
    uuid: UUID,
    epoch: int,
) -> None:
    """Write a file system with `content` at the byte `base` of the file `descriptor`, all zero there.

    `empty` is a file that mkfs.btrfs made: size, features and profiles are taken from it. Raises Full, Unsupported,
    ValueError for a compression that is not known, and OutputError for what btrfs cannot hold.
    """
    form, profiles = _read_empty(empty, uuid)
    compress, number = compressor(compression)
    if number == 3:
        form = replace(form, incompat=form.incompat | on_disk.COMPRESS_ZSTD)
    volumes, default = _volumes(content, subvolumes, uuid, epoch)
    number_inodes(volumes)
    space = Space(descriptor, base, form, profiles)
    files = FilesWriter(space, volumes, epoch, compress, number)
    for volume in volumes:
        files.write(volume)
    _Books(space, volumes, default, files, epoch).write()


def _read_empty(empty: Path, uuid: UUID) -> tuple[Format, tuple[int, int]]:
    """What the new file system is to be like, and the profiles of data and of trees."""
    with empty.open("rb") as file:
        file.seek(on_disk.SUPER_AT)
        superblock = file.read(on_disk.SUPER_SIZE)
        form = on_disk.read_format(superblock, uuid5(uuid, "chunk tree").bytes)
        # The one chunk of the system stands in the superblock, the others in the leaf that it leads to.
        logical, physical = (struct.unpack_from("<Q", superblock, _SUPER_CHUNKS_AT + at)[0] for at in (9, 17 + 48 + 8))
        root = struct.unpack_from("<Q", superblock, 88)[0]
        file.seek(root - logical + physical)
        block = file.read(form.node)
    kinds = []
    for number in range(struct.unpack_from("<I", block, 96)[0]):
        _, kind, _, offset, _ = struct.unpack_from("<QBQII", block, on_disk.HEADER + number * on_disk.ITEM)
        if kind == on_disk.CHUNK_ITEM:
            kinds.append(struct.unpack_from("<Q", block, on_disk.HEADER + offset + 24)[0])
    profiles = []
    for wanted in (on_disk.DATA, on_disk.METADATA):
        profile = next((kind & _PROFILES for kind in kinds if kind & wanted), 0)
        if profile not in (0, DUP):
            raise Unsupported("a profile for several devices")
        profiles.append(profile)
    return form, (profiles[0], profiles[1])


def _volumes(content: Path, subvolumes: Sequence[Subvolume], uuid: UUID, epoch: int) -> tuple[list[Volume], int]:
    """All trees of files, the top first, and the number of the default one."""
    tree = inodes(content, epoch)[0]
    top = tree
    if any(one.name for one in subvolumes):
        top = Inode(b"", _DIRECTORY, 0, 0, 0, epoch * 1_000_000_000, 0, 2, None)
        if not any(not one.path for one in subvolumes):
            top = tree
    volumes = [Volume(on_disk.FS_TREE, top, uuid5(uuid, "subvolume 5").bytes)]
    default = on_disk.FS_TREE
    found = [(one, _directory(tree, one.path)) for one in subvolumes]
    for number, (one, root) in enumerate(found, on_disk.FIRST_FREE):
        if one.name:
            if root.parent is not None:
                stand_in = replace(root, entries=[], number=0)
                place = root.parent.entries
                at = next(index for index, (_, inode) in enumerate(place) if inode is root)
                place[at] = (place[at][0], stand_in)
            root.parent = top
            top.entries.append((one.name.encode(), root))
        elif root is tree:
            raise OutputError("the tree itself is the top of the file system, and no subvolume without a name")
        volumes.append(Volume(number, root, uuid5(uuid, f"subvolume {one.name or one.path}").bytes, one.read_only))
        if one.is_default:
            default = number
    top.entries.sort(key=lambda entry: entry[0])
    return volumes, default


def _directory(tree: Inode, path: str) -> Inode:
    inode = tree
    for name in [part for part in path.split("/") if part]:
        inode = next((child for own, child in inode.entries if own == name.encode()), tree)
        if inode is tree or inode.kind != stat.S_IFDIR:
            raise OutputError(
                f"/{path.strip('/')} is to be a subvolume, but the tree has no such directory",
                hint="let an element make it, or correct the path",
            )
    return inode


@dataclass(frozen=True, slots=True)
class _Known:
    """What the trees that are written last say of all trees, their own blocks among them."""

    blocks: list[tuple[int, int, int]]
    chunks: list[Chunk]


class _Books:
    """Writes the trees that say what is where, and the superblock."""

    def __init__(self, space: Space, volumes: list[Volume], default: int, files: FilesWriter, epoch: int) -> None:
        self._space = space
        self._form = space.form
        self._volumes = volumes
        self._default = default
        self._files = files
        self._now = moment(epoch * 1_000_000_000)

    def write(self) -> None:
        roots = {
            on_disk.CSUM_TREE: self._tree(on_disk.CSUM_TREE, self._sums()),
            on_disk.UUID_TREE: self._tree(on_disk.UUID_TREE, self._uuids()),
            on_disk.DATA_RELOC_TREE: self._tree(on_disk.DATA_RELOC_TREE, self._top(on_disk.FIRST_FREE)),
        }
        known = _Known([], [])
        while True:
            with self._space.dry():
                self._late(dict(roots), known)
                after = _Known([*self._space.tree_blocks], [replace(chunk) for chunk in self._space.chunks])
            if after == known:
                break
            known = after
        root, chunks = self._late(roots, known)
        self._space.flush()
        self._space.write_super(self._superblock(root, chunks))

    def _late(self, roots: dict[int, Root], known: _Known) -> tuple[Root, Root]:
        """Write what depends on what is known of all blocks and chunks; return the root tree and the chunk tree."""
        ro_compat = self._form.ro_compat
        chunks = self._tree(on_disk.CHUNK_TREE, self._chunk_items(known))
        roots[on_disk.DEV_TREE] = self._tree(on_disk.DEV_TREE, self._device_extents(known))
        groups = self._groups(known)
        if ro_compat & on_disk.HAS_BLOCK_GROUP_TREE:
            roots[on_disk.BLOCK_GROUP_TREE] = self._tree(on_disk.BLOCK_GROUP_TREE, groups)
        if ro_compat & on_disk.HAS_FREE_SPACE_TREE:
            roots[on_disk.FREE_SPACE_TREE] = self._tree(on_disk.FREE_SPACE_TREE, self._free_space(known))
        extents = self._extents(known)
        if not ro_compat & on_disk.HAS_BLOCK_GROUP_TREE:
            extents += groups
        roots[on_disk.EXTENT_TREE] = self._tree(on_disk.EXTENT_TREE, sorted(extents))
        return self._tree(on_disk.ROOT_TREE, sorted(self._root_items(roots))), chunks

    def _tree(self, number: int, items: Iterable[Item]) -> Root:
        tree = TreeWriter(self._space, number)
        for key, data in items:
            tree.add(key, data)
        return tree.finish()

    def _sums(self) -> Iterable[Item]:
        width, sector = self._form.csum_size, self._form.sector
        most = min(_SUMS_IN_ITEM, self._form.room // 2) // width
        for logical, sums in self._files.sums:
            for begin in range(0, len(sums) // width, most):
                part = bytes(sums[begin * width : (begin + most) * width])
                yield (on_disk.CSUM_OBJECT, on_disk.EXTENT_CSUM, logical + begin * sector), part

    def _uuids(self) -> Iterable[Item]:
        for first, second, tree in sorted((*struct.unpack("<QQ", one.uuid), one.tree) for one in self._volumes):
            yield (first, on_disk.UUID_SUBVOLUME, second), struct.pack("<Q", tree)

    def _top(self, number: int) -> list[Item]:
        """An empty directory that is its own parent."""
        item = inode_item(self._form.generation, 0, self._form.node, 1, 0, 0, _DIRECTORY, 0, (self._now, self._now))
        return [
            ((number, on_disk.INODE_ITEM, 0), item),
            ((number, on_disk.INODE_REF, number), struct.pack("<QH", 0, 2) + b".."),
        ]

    def _chunk_items(self, known: _Known) -> Iterable[Item]:
        yield (1, on_disk.DEV_ITEM, 1), self._device_item(known.chunks)
        for chunk in known.chunks:
            yield (on_disk.FIRST_FREE, on_disk.CHUNK_ITEM, chunk.logical), chunk.item(self._form)

    def _device_item(self, chunks: Sequence[Chunk]) -> bytes:
        form = self._form
        used = sum(chunk.length * len(chunk.physical) for chunk in chunks)
        head = struct.pack("<3Q3I3QIBB", 1, form.total, used, form.sector, form.sector, form.sector, 0, 0, 0, 0, 0, 0)
        return head + form.device_uuid + form.uuid

    def _device_extents(self, known: _Known) -> Iterable[Item]:
        places = sorted((start, chunk.logical, chunk.length) for chunk in known.chunks for start in chunk.physical)
        for start, logical, length in places:
            data = struct.pack("<4Q16s", on_disk.CHUNK_TREE, on_disk.FIRST_FREE, logical, length, self._form.chunk_uuid)
            yield (1, on_disk.DEV_EXTENT, start), data

    def _groups(self, known: _Known) -> list[Item]:
        return [
            (
                (chunk.logical, on_disk.BLOCK_GROUP_ITEM, chunk.length),
                struct.pack("<3Q", chunk.used, on_disk.FIRST_FREE, chunk.kind),
            )
            for chunk in known.chunks
        ]

    def _free_space(self, known: _Known) -> Iterable[Item]:
        for chunk in known.chunks:
            free = chunk.length - chunk.used
            yield (chunk.logical, on_disk.FREE_SPACE_INFO, chunk.length), struct.pack("<2I", free > 0, 0)
            if free:
                yield (chunk.logical + chunk.used, on_disk.FREE_SPACE_EXTENT, free), b""

    def _extents(self, known: _Known) -> list[Item]:
        generation = self._form.generation
        items: list[Item] = []
        for logical, level, tree in known.blocks:
            data = struct.pack("<3QBQ", 1, generation, 2, on_disk.TREE_BLOCK_REF, tree)
            items.append(((logical, on_disk.METADATA_ITEM, level), data))
        for one in self._files.extents:
            data = struct.pack("<3QB", 1, generation, 1, on_disk.EXTENT_DATA_REF)
            data += struct.pack("<3QI", one.tree, one.inode, one.offset, 1)
            items.append(((one.logical, on_disk.EXTENT_ITEM, one.length), data))
        return items

    def _root_items(self, roots: dict[int, Root]) -> Iterable[Item]:
        for number, root in roots.items():
            yield (number, on_disk.ROOT_ITEM, 0), self._root_item(root, has_top=number == on_disk.DATA_RELOC_TREE)
        for volume in self._volumes:
            assert volume.written is not None
            yield (volume.tree, on_disk.ROOT_ITEM, 0), self._root_item(volume.written, volume, has_top=True)
            if volume.place is not None:
                tree, folder, index, name = volume.place
                data = struct.pack("<QQH", folder, index, len(name)) + name
                yield (tree, on_disk.ROOT_REF, volume.tree), data
                yield (volume.tree, on_disk.ROOT_BACKREF, tree), data
        yield from self._top(on_disk.ROOT_DIR)
        target = (self._default, on_disk.ROOT_ITEM, on_disk.MAXIMUM)
        entry = directory_entry(target, self._form.generation, b"default", 2)
        yield (on_disk.ROOT_DIR, on_disk.DIR_ITEM, name_hash(b"default")), entry

    def _root_item(self, root: Root, volume: Volume | None = None, *, has_top: bool) -> bytes:
        """`has_top` is True for trees of files, which begin with a directory."""
        form, generation = self._form, self._form.generation
        inode = inode_item(generation, 3, form.node, 1, 0, 0, _DIRECTORY, 0, (self._now, self._now))
        data = inode + struct.pack(
            "<7QI17sBB",
            *(generation, on_disk.FIRST_FREE if has_top else 0, root.logical, 0, root.blocks * form.node, 0),
            *(int(volume.read_only) if volume else 0, 1, b"", 0, root.level),
        )
        uuid = volume.uuid if volume else b""
        data += struct.pack("<Q16s16s16s4Q", generation, uuid, b"", b"", generation, generation, 0, 0)
        return data + self._now * 2 + bytes(24 + 64)

    def _superblock(self, root: Root, chunks: Root) -> bytes:
        form, all_chunks = self._form, self._space.chunks
        incompat = form.incompat | (on_disk.DEFAULT_SUBVOLUME if self._default != on_disk.FS_TREE else 0)
        data = bytearray(form.superblock)
        struct.pack_into("<2Q", data, 80, root.logical, chunks.logical)
        struct.pack_into("<Q", data, 120, sum(chunk.used for chunk in all_chunks))
        struct.pack_into("<Q", data, 164, form.generation)
        struct.pack_into("<Q", data, 188, incompat)
        struct.pack_into("<2B", data, 198, root.level, chunks.level)
        data[201:299] = self._device_item(all_chunks)
        struct.pack_into("<Q", data, 563, form.generation)
        array = b"".join(
            struct.pack("<QBQ", on_disk.FIRST_FREE, on_disk.CHUNK_ITEM, chunk.logical) + chunk.item(form)
            for chunk in all_chunks
            if chunk.kind & on_disk.SYSTEM
        )
        struct.pack_into("<I", data, 160, len(array))
        data[_SUPER_CHUNKS_AT : _SUPER_CHUNKS_AT + 2048] = array.ljust(2048, b"\0")
        data[_SUPER_BACKUPS_AT : _SUPER_BACKUPS_AT + 4 * 168] = bytes(4 * 168)
        return bytes(data)
