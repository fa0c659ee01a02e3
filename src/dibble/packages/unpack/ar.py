"""The ar format, as far as .deb files use it: short names, no symbol table.

Source: ar(5), deb(5); binutils `include/aout/ar.h`: 8 bytes of magic, then members: a 60-byte header and data padded
to an even length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

MAGIC = b"!<arch>\n"
_HEADER = 60
_END = b"`\n"


class DamagedArchive(ValueError):
    """The bytes are not such an archive, or not all of it. The text continues a sentence that begins with the file."""


@dataclass(frozen=True, slots=True)
class Member:
    """`offset` and `size` (bytes) tell where in the file the data lie."""

    name: str
    offset: int
    size: int


def members(file: IO[bytes]) -> list[Member]:
    """All members, in the order of the file, whose length is checked against theirs. Raises DamagedArchive."""
    length = file.seek(0, 2)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise DamagedArchive("is not an ar archive")
    found: list[Member] = []
    offset = len(MAGIC)
    while offset < length:
        file.seek(offset)
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            raise DamagedArchive(f"ends inside a member's header, at byte {length}")
        if header[58:] != _END:
            raise DamagedArchive(f"has no member's header at byte {offset}")
        try:
            name, size = header[:16].decode("ascii").rstrip().removesuffix("/"), int(header[48:58])
        except ValueError as error:
            raise DamagedArchive(f"has a damaged member's header at byte {offset}") from error
        if size < 0 or offset + _HEADER + size > length:
            raise DamagedArchive(f"is truncated: {name} should have {size} bytes")
        found.append(Member(name, offset + _HEADER, size))
        offset += _HEADER + size + (size & 1)
    return found
