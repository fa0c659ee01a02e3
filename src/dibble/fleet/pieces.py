"""Files in pieces, for a channel that carries messages of some megabytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 4 << 20
"""Bytes of a file in a message, before compression."""
_BLOCK = 64 << 10


def piece(path: Path, offset: int) -> bytes:
    """Some bytes of a file, compressed: what is empty in an image costs nothing on the way."""
    with path.open("rb") as file:
        file.seek(offset)
        return zstandard.ZstdCompressor(level=1).compress(file.read(PIECE))


def put_piece(path: Path, offset: int, data: bytes) -> int:
    """Write a piece into a file, empty blocks as holes; returns the piece's size."""
    plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=PIECE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        for at in range(0, len(plain), _BLOCK):
            block = plain[at : at + _BLOCK]
            if block.strip(b"\0"):
                file.seek(offset + at)
                file.write(block)
        if file.seek(0, os.SEEK_END) < offset + len(plain):
            file.truncate(offset + len(plain))
    return len(plain)
