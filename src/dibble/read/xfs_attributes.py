"""XFS extended attributes: in the inode, or in leaves below a hash tree, with long values in blocks of their own."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from dibble.errors import ReadError
from dibble.read.xfs_blocks import BAD, mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.read.xfs_blocks import Volume

_LOCAL_FORM = 1
_LOCAL, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 1, 2, 4, 8, 0x80  # flags of an entry
_NODE, _LEAF = b"\x3e\xbe", b"\x3b\xee"
_MAGIC_AT, _CRC_AT = 8, 12
_NODE_HEADER, _LEAF_HEADER = 64, 80
_VALUE_HEADER, _VALUE_CRC_AT = 56, 12
_LARGEST = 64 << 10  # bytes of a value: XATTR_SIZE_MAX
_ACLS = {b"SGI_ACL_FILE": "system.posix_acl_access", b"SGI_ACL_DEFAULT": "system.posix_acl_default"}
_NAMED = (0x02, 0x08)  # ACL_USER, ACL_GROUP: entries with an id
_NOBODY = 0xFFFFFFFF
_ACL_VERSION = 2  # linux/posix_acl_xattr.h


def attributes_of(volume: Volume, fork: bytes, form: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Names as Linux shows them, and values. Raises ReadError."""
    found = _short(fork) if form == _LOCAL_FORM else _long(volume, fork, form, count)
    for flags, name, value in found:
        if flags & (_PARENT | _INCOMPLETE):
            continue
        if flags & _ROOT and name in _ACLS:
            yield _ACLS[name], _acl(value)
        else:
            space = "trusted." if flags & _ROOT else "security." if flags & _SECURE else "user."
            yield space + os.fsdecode(name), value


def _acl(value: bytes) -> bytes:
    """An access control list from the form on disk to that of Linux."""
    (count,) = struct.unpack_from(">I", value)
    data = struct.pack("<I", _ACL_VERSION)
    for number in range(count):
        tag, who, rights = struct.unpack_from(">IIH", value, 4 + 12 * number)
        data += struct.pack("<HHI", tag, rights, who if tag in _NAMED else _NOBODY)
    return data


def _short(fork: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    _, count = struct.unpack_from(">HB", fork)
    at = 4
    for _ in range(count):
        name_size, value_size, flags = fork[at], fork[at + 1], fork[at + 2]
        at += 3
        end = at + name_size + value_size
        if end > len(fork):
            raise ReadError(f"{BAD}: an extended attribute is cut off")
        yield flags, fork[at : at + name_size], fork[at + name_size : end]
        at = end


def _long(volume: Volume, fork: bytes, form: int, count: int) -> Iterator[tuple[int, bytes, bytes]]:
    place: dict[int, int] = {}
    for logical, fsblock, number in mapped(volume, fork, form, count):
        place.update((logical + one, fsblock + one) for one in range(number))
    if not place:
        return
    seen: set[int] = set()

    def block(logical: int) -> bytes:
        if logical not in place or logical in seen:
            raise ReadError(f"{BAD}: its extended attributes lead to the block {logical}")
        seen.add(logical)
        data = volume.bytes_at(volume.offset(place[logical]), volume.block_size)
        volume.check(data, _CRC_AT, _NODE if data[_MAGIC_AT : _MAGIC_AT + 2] == _NODE else _LEAF, _MAGIC_AT)
        return data

    data = block(0)
    while data[_MAGIC_AT : _MAGIC_AT + 2] == _NODE:
        data = block(struct.unpack_from(">I", data, _NODE_HEADER + 4)[0])
    while True:
        yield from _of_leaf(volume, data, place)
        (following,) = struct.unpack_from(">I", data)
        if not following:
            return
        data = block(following)


def _of_leaf(volume: Volume, data: bytes, place: dict[int, int]) -> Iterator[tuple[int, bytes, bytes]]:
    (count,) = struct.unpack_from(">H", data, 56)
    for number in range(count):
        _, at, flags = struct.unpack_from(">IHB", data, _LEAF_HEADER + 8 * number)
        if flags & (_INCOMPLETE | _PARENT):
            continue
        if flags & _LOCAL:
            value_size, name_size = struct.unpack_from(">HB", data, at)
            name = data[at + 3 : at + 3 + name_size]
            value = data[at + 3 + name_size : at + 3 + name_size + value_size]
        else:
            logical, value_size, name_size = struct.unpack_from(">IIB", data, at)
            name = data[at + 9 : at + 9 + name_size]
            value = _remote(volume, logical, value_size, place)
        if len(name) != name_size or len(value) != value_size:
            raise ReadError(f"{BAD}: an extended attribute is cut off")
        yield flags, name, value


def _remote(volume: Volume, logical: int, size: int, place: dict[int, int]) -> bytes:
    if size > _LARGEST:
        raise ReadError(f"{BAD}: an extended attribute has {size} bytes")
    value = b""
    while len(value) < size:
        if logical not in place:
            raise ReadError(f"{BAD}: the value of an extended attribute is missing")
        data = volume.sealed(volume.offset(place[logical]), volume.block_size, _VALUE_CRC_AT, b"XARM")
        value += data[_VALUE_HEADER:]
        logical += 1
    return value[:size]
