"""dm-verity: a device that is read only as its root hash says, and the device beside it with the tree of hashes.

The format is that of veritysetup(8) with hash type 1 (Documentation/admin-guide/device-mapper/verity.rst; the
superblock as in cryptsetup's wiki, "DMVerity").
"""

from __future__ import annotations

import bisect
import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID  # noqa: TC003 - dataclass field type

from dibble.disk.sizes import human, round_up
from dibble.disk.volumes.base import Dracut, Placed, Region, Spot, System
from dibble.disk.volumes.sparse import write_into
from dibble.disk.volumes.workers import PIECE, TASKS, read_piece, workers
from dibble.errors import Where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.disk.volumes.base import VolumePlace

BLOCK = 4096
"""Bytes of a block, of data and of hashes."""
HASH = "sha256"
HASH_BYTES = 32
_EACH = BLOCK // HASH_BYTES
"""Hashes in a block."""


@dataclass(frozen=True, slots=True)
class Verity:
    """One `verity` node: the device `name` is `base`, whose hashes lie in `hashes`, a device too."""

    name: str
    base: str
    hashes: str
    uuid: UUID
    salt: bytes
    where: Where = field(default_factory=Where, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return "verity"

    @property
    def bases(self) -> tuple[str, ...]:
        return (self.base, self.hashes)

    @property
    def devices(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def grub_modules(self) -> tuple[str, ...]:
        """What is in the device lies as it is in its base, and GRUB does not look at hashes."""
        return ()

    @property
    def system(self) -> System:
        """No file: the root hash stands where its signature is checked, on the kernel's command line."""
        return System("veritysetup", "verity", dracut=Dracut("systemd-veritysetup"))

    def path_of(self, device: str) -> str:
        return f"/dev/mapper/{device}"

    def needed(self, wanted: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        size = max(round_up(wanted.get(self.name, 0), BLOCK), BLOCK)
        return {self.base: size, self.hashes: hashes_bytes(max(size, fixed.get(self.base, 0)) // BLOCK)}

    def place(self, sizes: Mapping[str, int]) -> dict[str, Placed]:
        """As large as its base, or as the hashes have room for."""
        most = sizes[self.base] // BLOCK
        blocks = bisect.bisect_right(range(most + 1), sizes[self.hashes], key=hashes_bytes) - 1
        if blocks < 1:
            least = human(hashes_bytes(sizes[self.base] // BLOCK))
            Spot(f'verity "{self.name}"', self.where).refuse(
                f'has {human(sizes[self.hashes])} on "{self.hashes}" for the hashes of {human(sizes[self.base])}',
                f'make "{self.hashes}" {least} at least',
            )
        return {self.name: Placed(blocks * BLOCK, self.base)}

    def write(self, place: VolumePlace) -> None:
        root = self.write_hashes(place.regions[self.name], place.regions[self.hashes])
        place.root_hashes[self.name] = root
        place.events.note(f'the root hash of verity "{self.name}" is {root.hex()}')

    def write_hashes(self, data: Region, target: Region) -> bytes:
        """Write the superblock and the hashes of `data`, from the topmost level down; returns the root hash."""
        levels = self._levels(data)
        write_into(target, 0, self.superblock(data.size // BLOCK))
        at = BLOCK
        for level in reversed(levels[:-1]):
            write_into(target, at, level)
            at += len(level)
        return levels[-1]

    def _levels(self, data: Region) -> Sequence[bytes]:
        """Blocks of hashes from those of the data up, then the root hash by itself."""
        with workers() as pool:
            places = range(0, data.size, PIECE)
            found = [b"".join(pool.map(_Hashing(data, self.salt), places, chunksize=TASKS))]
        while len(found[-1]) > HASH_BYTES:
            level = found[-1]
            found[-1] = level.ljust(round_up(len(level), BLOCK), b"\0")
            found.append(hashes_of(found[-1], self.salt))
        return found

    def superblock(self, blocks: int) -> bytes:
        # signature, version, type; UUID, algorithm; sizes of data and hash blocks, data blocks, salt
        head = struct.pack("<8sII16s32s", b"verity", 1, 1, self.uuid.bytes, HASH.encode())
        return head + struct.pack("<IIQH6x256s168x", BLOCK, BLOCK, blocks, len(self.salt), self.salt)


@dataclass(frozen=True, slots=True)
class _Hashing:
    data: Region
    salt: bytes

    def __call__(self, at: int) -> bytes:
        return hashes_of(read_piece(self.data, at), self.salt)


def hashes_of(data: bytes, salt: bytes) -> bytes:
    """The hashes of the blocks of `data`, one behind the other."""
    salted, view = hashlib.new(HASH, salt), memoryview(data)
    found = []
    for at in range(0, len(data), BLOCK):
        one = salted.copy()
        one.update(view[at : at + BLOCK])
        found.append(one.digest())
    return b"".join(found)


def hashes_bytes(blocks: int) -> int:
    """Bytes of the superblock's block and of all levels for so many blocks of data."""
    total = 1
    while blocks > 1:
        blocks = -(-blocks // _EACH)
        total += blocks
    return total * BLOCK
