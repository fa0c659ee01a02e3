"""Linux RAID (md) of levels 0, 1 and 10 with a superblock of version 1.2 (include/uapi/linux/raid/md_p.h, `struct
mdp_superblock_1`; read back by `mdadm --examine`)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from dibble.disk.sizes import human, round_down, round_up
from dibble.disk.volumes.base import Dracut, Placed, Spot, System
from dibble.disk.volumes.sparse import scatter, write_into
from dibble.errors import Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dibble.disk.volumes.base import VolumePlace

SECTOR = 512
LEVELS = {0: 2, 1: 2, 10: 2}
"""Level → the fewest members."""
CHUNK = 512 << 10
"""Bytes; what mdadm(8) takes for levels that stripe (--chunk)."""
DATA_AT = 1 << 20
"""Where data begins in a member, in bytes: behind the superblock, aligned like partitions are."""
_SUPER_AT = 4096  # version 1.2: 4 KiB from the start
_MAGIC = 0xA92B4EFC
_NEAR = 0x102  # level 10: two near copies, one far (drivers/md/raid10.c, `setup_geo`)
_COPIES = 2
_CLEAN = (1 << 64) - 1  # resync_offset of an array that is in sync (MaxSector)
_ROLES = 128  # how many roles the superblock has room for (mdadm's super1.c, `max_dev`)
_SPARE = 0xFFFF
NAME_BYTES = 32
"""Room for the name of an array."""


@dataclass(frozen=True, slots=True)
class Array:
    """One `raid` node: an array of all its bases, in their order. `chunk` in bytes, 0 for level 1."""

    name: str
    bases: tuple[str, ...]
    level: int
    chunk: int
    uuid: UUID
    where: Where = field(default_factory=Where, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return f"RAID {self.level}"

    @property
    def devices(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def grub_modules(self) -> tuple[str, ...]:
        return ("diskfilter", "mdraid1x")

    @property
    def system(self) -> System:
        """A line of mdadm.conf(5); an array without one counts as another machine's and is called md127."""
        digits = self.uuid.hex
        identity = ":".join(digits[at : at + 8] for at in range(0, 32, 8))
        line = f"ARRAY {self.path_of(self.name)} metadata=1.2 UUID={identity}"
        dracut = Dracut("mdraid", ((self.name, f"rd.md.uuid={identity}"),), ('mdadmconf="yes"',))
        # mdadm's monitor fails when it knows nobody to tell.
        first = "MAILADDR root\n"
        return System("mdadm", "mdadm", ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"), line, first, dracut=dracut)

    def path_of(self, device: str) -> str:
        return f"/dev/md/{device}"

    def needed(self, wanted: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        """Members that are alike."""
        size = wanted.get(self.name, 0)
        step = self.chunk or _SUPER_AT
        if self.level == 1:
            member: int = round_up(size, step)
        else:
            copies = _COPIES if self.level == 10 else 1
            rows = -(-copies * -(-size // step) // len(self.bases))
            member = rows * step
        return dict.fromkeys(self.bases, DATA_AT + max(member, step))

    def member_size(self, sizes: Mapping[str, int]) -> int:
        """Bytes of data in each member: as much as the smallest has, in whole chunks."""
        step = self.chunk or _SUPER_AT
        smallest = min(self.bases, key=lambda base: sizes[base])
        size = round_down(sizes[smallest] - DATA_AT, step)
        if size < step:
            Spot(f'raid "{self.name}"', self.where).refuse(
                f'has the member "{smallest}" of {human(sizes[smallest])}, too small for one chunk of {human(step)}',
                f"make every member {human(DATA_AT + step)} at least, or give a smaller chunk",
            )
        return size

    def size_of(self, member: int) -> int:
        """Bytes of the array with so many in each member."""
        if self.level == 1:
            return member
        if self.level == 0:
            return member * len(self.bases)
        # raid10_size (drivers/md/raid10.c), near copies: whole chunks of all members, halved
        return member // self.chunk * len(self.bases) // _COPIES * self.chunk

    def place(self, sizes: Mapping[str, int]) -> dict[str, Placed]:
        return {self.name: Placed(self.size_of(self.member_size(sizes)))}

    def write(self, place: VolumePlace) -> None:
        sizes = {base: place.regions[base].size for base in self.bases}
        member = self.member_size(sizes)
        for number, base in enumerate(self.bases):
            write_into(place.regions[base], _SUPER_AT, self.superblock(number, member, sizes[base], place.epoch))
        scatter(place.regions[self.name], {base: place.regions[base] for base in self.bases}, self.pieces)

    def pieces(self, at: int, size: int) -> Iterable[tuple[str, int, int, int]]:
        """(member, offset in it, offset in the array, size) for `size` bytes of the array from `at` on."""
        if self.level == 1:
            for base in self.bases:
                yield base, DATA_AT + at, at, size
            return
        copies = _COPIES if self.level == 10 else 1
        end = at + size
        while at < end:
            number, rest = divmod(at, self.chunk)
            length = min(self.chunk - rest, end - at)
            for copy in range(copies):
                row, column = divmod(number * copies + copy, len(self.bases))
                yield self.bases[column], DATA_AT + row * self.chunk + rest, at, length
            at += length

    def superblock(self, number: int, member: int, size: int, time: int) -> bytes:
        """Of the member `number`, which has `size` bytes, of which `member` are used for data."""
        sectors = member // SECTOR
        block = bytearray(256 + 2 * _ROLES)
        layout = _NEAR if self.level == 10 else 0
        # magic, version, features, pad; set UUID and name; creation, level, layout, size, chunk, members
        struct.pack_into("<4I", block, 0, _MAGIC, 1, 0, 0)
        struct.pack_into("<16s32s", block, 16, self.uuid.bytes, self.name.encode())
        used = 0 if self.level == 0 else sectors  # level 0 has no common size (mdadm's Create.c)
        struct.pack_into("<QIIQII", block, 64, time, self.level, layout, used, self.chunk // SECTOR, len(self.bases))
        data = (size - DATA_AT) // SECTOR if self.level == 1 else sectors
        struct.pack_into("<QQQQ", block, 128, DATA_AT // SECTOR, data, _SUPER_AT // SECTOR, 0)
        struct.pack_into("<II16s", block, 160, number, 0, uuid5(self.uuid, f"member {number}").bytes)
        struct.pack_into("<QQQII", block, 192, time, 1, _CLEAN, 0, _ROLES)
        roles = [*range(len(self.bases)), *[_SPARE] * (_ROLES - len(self.bases))]
        struct.pack_into(f"<{_ROLES}H", block, 256, *roles)
        struct.pack_into("<I", block, 216, _checksum(block))
        return bytes(block)


def _checksum(block: bytes | bytearray) -> int:
    """The sum of all 32-bit words, its carry added to it (`calc_sb_1_csum`, drivers/md/md.c)."""
    total: int = sum(struct.unpack(f"<{len(block) // 4}I", block))
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
