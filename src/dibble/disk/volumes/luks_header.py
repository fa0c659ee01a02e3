"""The header of a LUKS2 container as bytes (LUKS2 On-Disk Format Specification 1.1, chapters 2 and 3).

Two copies, each of a binary part and a JSON text, are followed by the area of the keyslots and then by the data.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

COPY = 16 << 10
"""Bytes of one copy of the header: the smallest size that the specification has, and cryptsetup's own choice."""
_BINARY = 4096
KEYSLOTS_AT = 2 * COPY
DATA_AT = 16 << 20
"""Where data begins, in bytes; what cryptsetup(8) takes for a new container."""
STRIPES = 4000
"""Of the anti-forensic splitter (specification, 2.4)."""
HASH = "sha256"
_HASH_BYTES = 32
SALT_BYTES = 32
COPY_SALT_BYTES = 64
DIGEST_ITERATIONS = 1000
"""Of PBKDF2 for the digest: the fewest that the format has. Nobody guesses a volume key of 256 bits or more."""
LABEL_BYTES = 47
"""Room for the label, less the zero behind it."""
SLOTS = 32
_MAGICS = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")


@dataclass(frozen=True, slots=True)
class Slot:
    """One keyslot: `kdf` is its JSON object, without the salt; `material` the split volume key, encrypted."""

    kdf: dict[str, str | int]
    salt: bytes
    material: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """All that a header says. `key_bytes` of the volume key; `data_bytes` None where the data grows with the device.

    `digest` is `digest_of` the volume key and `digest_salt`; `copy_salts` are for the two copies.
    """

    uuid: UUID
    label: str
    cipher: str
    sector_size: int
    key_bytes: int
    data_bytes: int | None
    slots: Sequence[Slot]
    digest_salt: bytes
    digest: bytes
    copy_salts: tuple[bytes, bytes]

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of everything before the data."""
        text = json.dumps(self.metadata(), separators=(",", ":")).encode()
        assert len(text) < COPY - _BINARY, "the text of a few slots fits"
        for number, magic in enumerate(_MAGICS):
            yield number * COPY, self._copy(number * COPY, magic, self.copy_salts[number], text)
        for number, slot in enumerate(self.slots):
            yield slot_offset(number, self.key_bytes), slot.material

    def metadata(self) -> dict[str, Any]:
        """The JSON object; numbers of 64 bits are texts in it (specification, 3.1)."""
        names = [str(number) for number in range(len(self.slots))]
        segment = {
            "type": "crypt",
            "offset": str(DATA_AT),
            "size": "dynamic" if self.data_bytes is None else str(self.data_bytes),
            "iv_tweak": "0",
            "encryption": self.cipher,
            "sector_size": self.sector_size,
        }
        digest = {
            "type": "pbkdf2",
            "keyslots": names,
            "segments": ["0"],
            "hash": HASH,
            "iterations": DIGEST_ITERATIONS,
            "salt": _base64(self.digest_salt),
            "digest": _base64(self.digest),
        }
        return {
            "keyslots": {name: self._slot(int(name)) for name in names},
            "tokens": {},
            "segments": {"0": segment},
            "digests": {"0": digest},
            "config": {"json_size": str(COPY - _BINARY), "keyslots_size": str(DATA_AT - KEYSLOTS_AT)},
        }

    def _slot(self, number: int) -> dict[str, Any]:
        slot = self.slots[number]
        return {
            "type": "luks2",
            "key_size": self.key_bytes,
            "af": {"type": "luks1", "stripes": STRIPES, "hash": HASH},
            "area": {
                "type": "raw",
                "offset": str(slot_offset(number, self.key_bytes)),
                "size": str(_slot_bytes(self.key_bytes)),
                "encryption": self.cipher,
                "key_size": self.key_bytes,
            },
            "kdf": {**slot.kdf, "salt": _base64(slot.salt)},
        }

    def _copy(self, offset: int, magic: bytes, salt: bytes, text: bytes) -> bytes:
        block = bytearray(COPY)
        # magic, version, size, number of changes, label, hash; salt, UUID, subsystem, own offset; then the checksum
        struct.pack_into(">6sHQQ48s32s", block, 0, magic, 2, COPY, 1, self.label.encode(), HASH.encode())
        struct.pack_into(">64s40s48sQ", block, 104, salt, str(self.uuid).encode(), b"", offset)
        block[_BINARY : _BINARY + len(text)] = text
        block[_CHECKSUM_AT : _CHECKSUM_AT + _HASH_BYTES] = hashlib.new(HASH, block).digest()
        return bytes(block)


_CHECKSUM_AT = 448


def _slot_bytes(key_bytes: int) -> int:
    """Bytes of a keyslot's area, in whole pieces of 4096."""
    return -(-key_bytes * STRIPES // 4096) * 4096


def slot_offset(number: int, key_bytes: int) -> int:
    """Where the material of a keyslot lies."""
    return KEYSLOTS_AT + number * _slot_bytes(key_bytes)


def digest_of(volume_key: bytes, salt: bytes) -> bytes:
    """By which a volume key is recognised."""
    return hashlib.pbkdf2_hmac(HASH, volume_key, salt, DIGEST_ITERATIONS, _HASH_BYTES)


def split(key: bytes, noise: bytes) -> bytes:
    """A key spread over `STRIPES` pieces of its length, all of which are needed to get it back (specification, 2.4).

    `noise` has as many bytes as all pieces but the last.
    """
    size = len(key)
    assert len(noise) == size * (STRIPES - 1), "noise for all stripes but one"
    mixed = bytes(size)
    for at in range(0, len(noise), size):
        mixed = _diffuse(_xor(mixed, noise[at : at + size]))
    return noise + _xor(mixed, key)


def _diffuse(block: bytes) -> bytes:
    """Each piece of a hash's length is replaced by its hash, with its number in front."""
    pieces = range(0, len(block), _HASH_BYTES)
    hashes = (
        hashlib.new(HASH, struct.pack(">I", number) + block[at : at + _HASH_BYTES]) for number, at in enumerate(pieces)
    )
    return b"".join(each.digest() for each in hashes)[: len(block)]


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
