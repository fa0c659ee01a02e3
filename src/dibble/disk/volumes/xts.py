"""AES-XTS of whole devices as dm-crypt has it with `aes-xts-plain64` (Documentation/admin-guide/device-mapper/
dm-crypt.rst): each sector is a unit of its own, whose number is the tweak."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.disk.volumes.workers import PIECE, TASKS, read_piece, workers
from dibble.store.sparse import data_ranges, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.disk.volumes.base import Region

UNIT = 512
"""Sectors are counted in these bytes, also where they are larger."""


def encrypted(key: bytes, data: bytes, first: int, sector_size: int) -> bytes:
    """Whole sectors, of which the first has the number `first`, counted in 512 bytes."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import XTS

    cipher, out = AES(key), bytearray(len(data))
    view, target = memoryview(data), memoryview(out)
    for at in range(0, len(data), sector_size):
        tweak = (first + at // UNIT).to_bytes(16, "little")
        end = at + sector_size
        Cipher(cipher, XTS(tweak)).encryptor().update_into(view[at:end], target[at:end])
    return bytes(out)


def digest_of_content(source: Region) -> bytes:
    """A digest of a device's bytes, the same wherever its file has holes."""
    known = hashlib.sha256(source.size.to_bytes(8, "little"))
    with workers() as pool:
        places = list(_pieces_with_data(source))
        for at, digest in zip(places, pool.map(_Hashing(source), places, chunksize=TASKS), strict=True):
            if digest:
                known.update(at.to_bytes(8, "little") + digest)
    return known.digest()


def encrypt(source: Region, target: Region, key: bytes, sector_size: int) -> None:
    """Write all of `source`, holes too, to the beginning of `target`; sizes are multiples of the sectors'."""
    work = _Encrypting(source, target, key, sector_size)
    with workers() as pool:
        for _ in pool.map(work, range(0, source.size, PIECE), chunksize=TASKS):
            pass


def _pieces_with_data(source: Region) -> Iterator[int]:
    """Offsets in the region, multiples of a piece, of the pieces that may have other bytes than zeros."""
    last = -1
    with source.path.open("rb") as file:
        for start, length in data_ranges(file.fileno(), source.offset, source.offset + source.size):
            begin, end = start - source.offset, start - source.offset + length
            for number in range(max(begin // PIECE, last + 1), -(-end // PIECE)):
                yield number * PIECE
                last = number


@dataclass(frozen=True, slots=True)
class _Hashing:
    source: Region

    def __call__(self, at: int) -> bytes:
        """The digest of a piece; empty for zeros."""
        data = read_piece(self.source, at)
        return b"" if data.count(0) == len(data) else hashlib.sha256(data).digest()


@dataclass(frozen=True, slots=True)
class _Encrypting:
    source: Region
    target: Region
    key: bytes
    sector_size: int

    def __call__(self, at: int) -> None:
        data = encrypted(self.key, read_piece(self.source, at), at // UNIT, self.sector_size)
        with self.target.path.open("r+b", buffering=0) as file:
            write_at(file.fileno(), data, self.target.offset + at)
