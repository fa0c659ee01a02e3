"""Keys of a LUKS2 container: from secrets by a slow function, and all else that would be chance, derived or random.

The same secrets and the same content give the same bytes. Nobody without the secrets can compute any of it, and to try
a secret costs as much as to try it at the keyslot. Another content has another volume key, so that two images never
show where they are alike. docs/volumes.md says what that means for users.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.disk.volumes.luks_header import HASH, SALT_BYTES

if TYPE_CHECKING:
    from uuid import UUID

Chance = Callable[[str, int], bytes]
"""Bytes for a purpose, so many: no two purposes get the same ones."""


@dataclass(frozen=True, slots=True)
class Kdf:
    """A function that makes a key of a secret, slowly. `memory` in bytes; it and `lanes` are of argon2id alone."""

    name: str
    iterations: int
    memory: int = 0
    lanes: int = 1

    def key_of(self, secret: bytes, salt: bytes, length: int) -> bytes:
        """Raises MemoryError where there is less memory than it takes."""
        if self.name == "pbkdf2":
            return hashlib.pbkdf2_hmac(HASH, secret, salt, self.iterations, length)
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

        kib = self.memory >> 10
        argon2 = Argon2id(salt=salt, length=length, iterations=self.iterations, lanes=self.lanes, memory_cost=kib)
        return argon2.derive(secret)

    def described(self) -> dict[str, str | int]:
        """Its JSON object in a keyslot (specification, 3.2.4)."""
        if self.name == "pbkdf2":
            return {"type": "pbkdf2", "hash": HASH, "iterations": self.iterations}
        return {"type": "argon2id", "time": self.iterations, "memory": self.memory >> 10, "cpus": self.lanes}


def derived(secrets: Sequence[bytes], kdf: Kdf, uuid: UUID, content: bytes) -> Chance:
    """Chance that all secrets together, the container's UUID and its content decide.

    SHAKE-256 of a key, the content's digest and the purpose: the two have a fixed length, so inputs are never mixed up.
    """
    salt = hashlib.sha256(b"dibble luks" + uuid.bytes).digest()
    keys = (kdf.key_of(secret, salt, SALT_BYTES) for secret in secrets)
    key = hashlib.sha256(b"".join(keys)).digest()
    return lambda purpose, size: hashlib.shake_256(key + content + purpose.encode()).digest(size)


def random(purpose: str, size: int) -> bytes:
    """True chance: no two containers are alike."""
    return os.urandom(size)
