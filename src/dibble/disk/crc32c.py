"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), which file systems and disk formats protect their blocks with."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ONES = 0xFFFFFFFF


@cache
def _extended() -> Callable[[int, bytes], int]:
    """The library's function; it comes late, for a build that changes nothing needs none."""
    import google_crc32c

    extend: Callable[[int, bytes], int] = google_crc32c.extend
    return extend


def crc32c(data: bytes) -> int:
    """The checksum of some bytes."""
    return _extended()(0, data)


def hashed(data: bytes, state: int) -> int:
    """The bare remainder from a starting `state`, not inverted: what btrfs sorts names by."""
    return _extended()(state ^ _ONES, data) ^ _ONES


def checksums(data: bytes | bytearray, size: int, skip: int = 0) -> list[int]:
    """The checksum of each block of `size` bytes in `data`, less the `skip` first bytes of each block."""
    extend = _extended()
    view = memoryview(data)
    return [extend(0, bytes(view[at + skip : at + size])) for at in range(0, len(data), size)]
