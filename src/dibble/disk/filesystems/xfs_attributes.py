"""XFS extended attributes: in the inode, or in blocks with a hash tree and blocks for long values."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.disk.filesystems.xfs_forks import (
    EXTENTS,
    LOCAL,
    NODE_CRC_AT,
    NODE_HEADER,
    Child,
    Extent,
    Fork,
    block_header,
    fork_of,
    name_hash,
    node_counts,
    write_nodes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.disk.filesystems.xfs_format import Device, Geometry
    from dibble.disk.filesystems.xfs_space import Space

_ROOT, _SECURE, _IS_LOCAL = 2, 4, 1  # flags of an entry
_NAMESPACES = {"user.": 0, "trusted.": _ROOT, "security.": _SECURE}
_ACLS = {"system.posix_acl_access": b"SGI_ACL_FILE", "system.posix_acl_default": b"SGI_ACL_DEFAULT"}
_ACL_VERSION = 2  # linux/posix_acl_xattr.h
_NAMED = (0x02, 0x08)  # ACL_USER, ACL_GROUP: entries with an id
_LEAF_MAGIC = 0x3BEE
_LEAF_HEADER, _VALUE_HEADER = 80, 56
_VALUE_CRC_AT = 12
_NO_LSN = (1 << 64) - 1  # tells recovery of the log that such a block has no place in it


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute as XFS names it."""

    flags: int
    name: bytes
    value: bytes


def attribute(name: str, value: bytes) -> Attribute | None:
    """What XFS makes of an attribute of Linux; None when it has no place for it."""
    if name in _ACLS:
        return Attribute(_ROOT, _ACLS[name], _acl(value))
    for prefix, flags in _NAMESPACES.items():
        if name.startswith(prefix):
            return Attribute(flags, name.removeprefix(prefix).encode(errors="surrogateescape"), value)
    return None


def _acl(value: bytes) -> bytes:
    """An access control list from Linux's form to that on disk."""
    if struct.unpack_from("<I", value)[0] != _ACL_VERSION:
        raise ValueError("an access control list has an unknown version")
    entries = list(struct.iter_unpack("<HHI", value[4:]))
    data = struct.pack(">I", len(entries))
    return data + b"".join(
        struct.pack(">IIHH", tag, number if tag in _NAMED else 0, rights, 0) for tag, rights, number in entries
    )


def short_form(attributes: Sequence[Attribute], room: int) -> bytes | None:
    """Attributes that fit into the inode; None when they do not."""
    size = 4 + sum(3 + len(one.name) + len(one.value) for one in attributes)
    if size > room or len(attributes) > 255 or any(len(one.value) > 255 for one in attributes):
        return None
    entries = b"".join(bytes([len(one.name), len(one.value), one.flags]) + one.name + one.value for one in attributes)
    return struct.pack(">HBB", size, len(attributes), 0) + entries


def local(data: bytes) -> Fork:
    return Fork(LOCAL, data)


class AttributeWriter:
    """Writes attributes that do not fit into their inode."""

    def __init__(self, device: Device, geometry: Geometry, space: Space) -> None:
        self._device = device
        self._geometry = geometry
        self._space = space
        self._size = geometry.block_size

    def write(self, owner: int, attributes: Sequence[Attribute]) -> Fork:
        """The attribute fork of an inode, 16 bytes in the inode: all blocks lie in a row."""
        ordered = sorted(attributes, key=lambda one: (name_hash(one.name), one.name, one.flags))
        leaves = self._leaves(ordered)
        levels = node_counts(len(leaves), (self._size - NODE_HEADER) // 8)
        nodes = sum(len(level) for level in levels)
        values = [one for one in ordered if not self._is_local(one)]
        per_block = self._size - _VALUE_HEADER
        needed = [-(-len(one.value) // per_block) for one in values]
        first = self._space.take_whole(nodes + len(leaves) + sum(needed))
        value_at = {}
        logical = nodes + len(leaves)
        for one, count in zip(values, needed, strict=True):
            value_at[id(one)] = logical
            self._write_value(owner, one.value, first + logical)
            logical += count
        children = []
        for index, leaf in enumerate(leaves):
            place = nodes + index
            forward = place + 1 if index + 1 < len(leaves) else 0
            back = place - 1 if index else 0
            self._write_leaf(owner, leaf, first + place, forward, back, value_at)
            children.append(Child(name_hash(leaf[-1].name), place))
        if nodes:
            places = [(number, first + number) for number in range(nodes)]
            write_nodes(children, levels, places[0], places[1:], owner, self._device, self._geometry, self._size)
        fork = fork_of([Extent(0, first, logical)], 16, owner, self._device, self._geometry, self._space)
        assert fork.form == EXTENTS
        return fork

    def _is_local(self, one: Attribute) -> bool:
        """Whether a value stands beside its name: as long as both take at most three quarters of a block."""
        return 3 + len(one.name) + len(one.value) <= self._size * 3 // 4

    def _stored(self, one: Attribute) -> int:
        size = 3 + len(one.name) + len(one.value) if self._is_local(one) else 9 + len(one.name)
        return (size + 3) & ~3

    def _leaves(self, ordered: list[Attribute]) -> list[list[Attribute]]:
        leaves: list[list[Attribute]] = [[]]
        filled = _LEAF_HEADER
        for one in ordered:
            size = 8 + self._stored(one)
            if filled + size > self._size:
                leaves.append([])
                filled = _LEAF_HEADER
            leaves[-1].append(one)
            filled += size
        return leaves

    def _write_leaf(  # noqa: PLR0917 - one block
        self, owner: int, leaf: list[Attribute], fsblock: int, forward: int, back: int, value_at: dict[int, int]
    ) -> None:
        block = bytearray(self._size)
        block[:56] = block_header(_LEAF_MAGIC, fsblock, owner, self._geometry, forward=forward, back=back)
        end = self._size
        for index, one in enumerate(leaf):
            end -= self._stored(one)
            if self._is_local(one):
                flags = one.flags | _IS_LOCAL
                body = struct.pack(">HB", len(one.value), len(one.name)) + one.name + one.value
            else:
                flags = one.flags
                body = struct.pack(">IIB", value_at[id(one)], len(one.value), len(one.name)) + one.name
            block[end : end + len(body)] = body
            struct.pack_into(">IHBB", block, _LEAF_HEADER + 8 * index, name_hash(one.name), end, flags, 0)
        begin = _LEAF_HEADER + 8 * len(leaf)
        # A first used byte of 65536 in blocks of 64 KiB is written as 0, which no leaf with entries has.
        struct.pack_into(">3HBB2H", block, 56, len(leaf), self._size - end, end, 0, 0, begin, end - begin)
        self._device.seal(self._geometry.offset(fsblock), block, NODE_CRC_AT)

    def _write_value(self, owner: int, value: bytes, fsblock: int) -> None:
        geometry = self._geometry
        step = self._size - _VALUE_HEADER
        for number, begin in enumerate(range(0, len(value), step)):
            part = value[begin : begin + step]
            block = bytearray(self._size)
            place = fsblock + number
            struct.pack_into(">4sIII16s", block, 0, b"XARM", begin, len(part), 0, geometry.uuid)
            struct.pack_into(">3Q", block, 32, owner, geometry.daddr(place), _NO_LSN)
            block[_VALUE_HEADER : _VALUE_HEADER + len(part)] = part
            self._device.seal(geometry.offset(place), block, _VALUE_CRC_AT)
