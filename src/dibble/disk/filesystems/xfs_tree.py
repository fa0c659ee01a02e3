"""Fills a new, empty XFS file system with a tree: numbers the inodes, writes content, and the books in the end."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from typing import TYPE_CHECKING

from dibble.disk.filesystems import xfs_attributes, xfs_directory
from dibble.disk.filesystems.xfs_attributes import Attribute, AttributeWriter
from dibble.disk.filesystems.xfs_directory import DirectoryWriter
from dibble.disk.filesystems.xfs_forks import DEVICE, EXTENTS, LOCAL, Extent, Fork, fork_of
from dibble.disk.filesystems.xfs_format import (
    BIGTIME,
    CHUNK,
    INODE_CORE,
    NREXT64,
    NULL,
    geometry,
    superblock_with,
)
from dibble.disk.filesystems.xfs_space import Space
from dibble.errors import OutputError
from dibble.tree.inodes import attributes, inodes, stretches

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.disk.filesystems.xfs_format import Device
    from dibble.tree.inodes import Inode

LONGEST_LINK = 1024  # bytes, XFS_SYMLINK_MAXLEN
_INODE_CRC_AT = 100
_LINK_HEADER, _LINK_CRC_AT = 56, 12
_FEWEST = 56
"""Bytes that stay for data in an inode with attributes: a directory's or a file's tree needs that many."""
_SECOND = 1_000_000_000
_BIGTIME_START = 1 << 31  # seconds before 1970 at which the clock of big timestamps begins
_EARLIEST, _LATEST = -(1 << 31), (1 << 31) - 1  # seconds, without big timestamps
_RESERVED = 3
"""The first inodes: the root, and the two of the real-time device."""


def fill(device: Device, content: Path, epoch: int) -> None:
    """Fill the empty file system on `device` with `content`.

    Raises Full when it is too small, Unsupported for a file system with features that are not written here, and
    OutputError for what XFS cannot hold.
    """
    _Filler(device, epoch).fill(content)


class _Filler:
    def __init__(self, device: Device, epoch: int) -> None:
        self.device = device
        self.superblock = device.read(0, 512)
        self.geometry = geometry(self.superblock)
        if self.geometry.sector_size > len(self.superblock):
            self.superblock = device.read(0, self.geometry.sector_size)
        self.epoch = epoch
        self.space = Space(device, self.geometry)
        self.directories = DirectoryWriter(device, self.geometry, self.space)
        self.attributes = AttributeWriter(device, self.geometry, self.space)
        big = bool(self.geometry.incompat & BIGTIME)
        self.flags2 = (8 if big else 0) | (16 if self.geometry.incompat & NREXT64 else 0)  # di_flags2

    def fill(self, content: Path) -> None:
        free = struct.unpack_from(">Q", self.superblock, 144)[0]
        everything = inodes(content, self.epoch)
        needed = sum(
            -(-inode.size // self.geometry.block_size) + 1 for inode in everything if inode.kind != stat.S_IFLNK
        )
        self.space.spread(needed + len(everything) * self.geometry.inode_size // self.geometry.block_size)
        count, unused = self._number(everything)
        self._system_inodes()
        for inode in everything:
            self._write(inode)
        for number in unused:
            self._put(number, self._blank(number))
        self.space.finish()
        self.device.flush()
        self.device.write(0, superblock_with(self.superblock, count, len(unused), free - self.space.taken))

    def _number(self, everything: list[Inode]) -> tuple[int, list[int]]:
        """Give each inode a number; return how many there are on disk, and those that are unused."""
        form = self.geometry
        first = form.root & ~(CHUNK - 1)
        starts = [first]
        blocks = max(1, CHUNK * form.inode_size // form.block_size)
        while len(starts) * CHUNK < len(everything) + _RESERVED - 1:
            place = self.space.take_whole(blocks, max(form.alignment, 1))
            starts.append(place << form.inodes_log)
        numbers = [start + index for start in sorted(starts) for index in range(CHUNK)]
        system = {form.root + index for index in range(_RESERVED)}
        usable = [number for number in numbers if number not in system]
        everything[0].number = form.root
        for inode, number in zip(everything[1:], usable, strict=False):
            inode.number = number
        unused = usable[len(everything) - 1 :]
        left = set(unused)
        within = form.group_log + form.inodes_log
        for start in sorted(starts):
            mask = sum(1 << index for index in range(CHUNK) if start + index in left)
            self.space.groups[start >> within].chunks.append((start & ((1 << within) - 1), mask))
        return len(numbers), unused

    def _write(self, inode: Inode) -> None:
        own = self._own_attributes(inode)
        room = self.geometry.literal
        is_device = inode.kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
        extra = None
        if own:
            least = 8 if is_device else _FEWEST
            inside = xfs_attributes.short_form(own, room - least)
            extra = xfs_attributes.local(inside) if inside else self.attributes.write(inode.number, own)
            room = (room - len(extra.data)) // 8 * 8
        size = 0
        if is_device:
            room = 8
            data = Fork(DEVICE, struct.pack(">I", _device_number(inode.rdev)))
        elif inode.kind == stat.S_IFDIR:
            size, data = self._directory(inode, room)
        elif inode.kind == stat.S_IFLNK:
            size, data = self._link(inode, room)
        else:
            size, data = inode.size, self._content(inode, room)
        self._put(inode.number, self._record(inode, size, data, extra, room))

    def _own_attributes(self, inode: Inode) -> list[Attribute]:
        found = []
        for name, value in attributes(inode.path):
            one = xfs_attributes.attribute(name, value)
            if one is None:
                raise OutputError(
                    f"{os.fsdecode(inode.path)} has the attribute {name}, for which xfs has no place",
                    hint="remove it with setfattr in the element that made it, or take another file system",
                )
            found.append(one)
        return found

    def _directory(self, inode: Inode, room: int) -> tuple[int, Fork]:
        short = xfs_directory.short_form(inode, room)
        if short is not None:
            return len(short), Fork(LOCAL, short)
        size, extents = self.directories.write(inode)
        return size, self._fork(extents, room, inode.number)

    def _link(self, inode: Inode, room: int) -> tuple[int, Fork]:
        target = os.readlink(inode.path)  # noqa: PTH115 - bytes
        if len(target) > LONGEST_LINK:
            raise OutputError(
                f"{os.fsdecode(inode.path)} is a symbolic link to a name of {len(target)} bytes;"
                f" xfs holds {LONGEST_LINK}",
                hint="let the element that makes it take a shorter name, or take another file system",
            )
        if len(target) <= room:
            return len(target), Fork(LOCAL, target)
        form = self.geometry
        step = form.block_size - _LINK_HEADER
        first = self.space.take_whole(-(-len(target) // step))
        for number, begin in enumerate(range(0, len(target), step)):
            part = target[begin : begin + step]
            block = bytearray(form.block_size)
            struct.pack_into(">4sIII16s", block, 0, b"XSLM", begin, len(part), 0, form.uuid)
            struct.pack_into(">3Q", block, 32, inode.number, form.daddr(first + number), 0)
            block[_LINK_HEADER : _LINK_HEADER + len(part)] = part
            self.device.seal(form.offset(first + number), block, _LINK_CRC_AT)
        return len(target), self._fork([Extent(0, first, -(-len(target) // step))], room, inode.number)

    def _content(self, inode: Inode, room: int) -> Fork:
        size = self.geometry.block_size
        extents = []
        for offset, data in stretches(inode.path, inode.size):
            logical, view = offset // size, memoryview(data)
            for fsblock, count in self.space.take(-(-len(data) // size)):
                self.device.write(self.geometry.offset(fsblock), view[: count * size])
                view = view[count * size :]
                extents.append(Extent(logical, fsblock, count))
                logical += count
        return self._fork(extents, room, inode.number)

    def _fork(self, extents: list[Extent], room: int, number: int) -> Fork:
        return fork_of(extents, room, number, self.device, self.geometry, self.space)

    def _time(self, moment: int) -> bytes:
        """Nanoseconds since 1970 as an inode has them; what its clock does not reach is the nearest that it does."""
        if self.flags2 & 8:
            return struct.pack(">Q", max(0, moment + _BIGTIME_START * _SECOND))
        seconds, rest = divmod(moment, _SECOND)
        return struct.pack(">iI", min(max(seconds, _EARLIEST), _LATEST), rest)

    def _blank(self, number: int) -> bytearray:
        """An inode that is free."""
        data = bytearray(self.geometry.inode_size)
        struct.pack_into(">2sHB", data, 0, b"IN", 0, 3)
        uuid = self.geometry.uuid
        # NFS tells inodes of the same number apart by this; it is random elsewhere.
        struct.pack_into(">II", data, 92, zlib.crc32(uuid + number.to_bytes(8, "big")), NULL)
        struct.pack_into(">Q16s", data, 152, number, uuid)
        return data

    def _record(self, inode: Inode, size: int, data: Fork, extra: Fork | None, room: int) -> bytearray:
        record = self._blank(inode.number)
        moment = self._time(inode.mtime)
        struct.pack_into(">2sHBBHIII", record, 0, b"IN", inode.mode, 3, data.form, 0, inode.uid, inode.gid, inode.names)
        record[32:56] = moment * 3
        struct.pack_into(">QQ", record, 56, size, data.blocks + (extra.blocks if extra else 0))
        extra_extents = extra.extents if extra else 0
        if self.flags2 & 16:
            struct.pack_into(">Q", record, 24, data.extents)
            struct.pack_into(">I", record, 76, extra_extents)
        else:
            struct.pack_into(">IH", record, 76, data.extents, extra_extents)
        struct.pack_into(">BB", record, 82, room // 8 if extra else 0, extra.form if extra else EXTENTS)
        struct.pack_into(">Q", record, 120, self.flags2)
        record[144:152] = self._time(self.epoch * _SECOND)
        record[INODE_CORE : INODE_CORE + len(data.data)] = data.data
        if extra:
            record[INODE_CORE + room : INODE_CORE + room + len(extra.data)] = extra.data
        return record

    def _system_inodes(self) -> None:
        """Take chance and the hour out of the inodes that mkfs made."""
        for number in (self.geometry.root + 1, self.geometry.root + 2):
            record = bytearray(self.device.read(self.geometry.inode_offset(number), self.geometry.inode_size))
            record[32:56] = self._time(self.epoch * _SECOND) * 3
            record[92:96] = self._blank(number)[92:96]
            record[144:152] = self._time(self.epoch * _SECOND)
            record[_INODE_CRC_AT : _INODE_CRC_AT + 4] = bytes(4)
            self._put(number, record)

    def _put(self, number: int, record: bytearray) -> None:
        self.device.seal(self.geometry.inode_offset(number), record, _INODE_CRC_AT)


def _device_number(rdev: int) -> int:
    """As IRIX had it: 14 bits of the major number, 18 of the minor one (linux/kdev_t.h, sysv_encode_dev)."""
    return os.major(rdev) << 18 | os.minor(rdev)
