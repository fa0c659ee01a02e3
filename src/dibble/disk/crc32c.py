"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), which file systems protect their blocks with.

The standard library has no such checksum, and a loop over bytes would take longer than writing the disk. So many blocks
of one size are done at once, one byte of all of them at each step, as `bytes.translate` and xor of long integers run at
the speed of C; and faster yet where the system has a library for it.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_POLYNOMIAL = 0x82F63B78  # reflected
_SEED = 0xFFFFFFFF


@cache
def _tables() -> tuple[bytes, bytes, bytes, bytes]:
    """The table of the checksum by bytes of its entries, the lowest first."""
    entries = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        entries.append(value)
    first, second, third, fourth = (bytes(entry >> shift & 0xFF for entry in entries) for shift in (0, 8, 16, 24))
    return first, second, third, fourth


def crc32c(data: bytes) -> int:
    """The checksum of a few bytes."""
    return checksums(data, len(data))[0]


@cache
def _whole_table() -> tuple[int, ...]:
    return tuple(int.from_bytes(bytes(entry), "little") for entry in zip(*_tables(), strict=True))


def hashed(data: bytes, state: int) -> int:
    """The bare remainder from a starting `state`, not inverted: what btrfs sorts names by."""
    table = _whole_table()
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return state


@cache
def _compiled() -> Callable[[int, int, int], int] | None:
    """ext2fs_crc32c_le(crc, address, length) of e2fsprogs' library, which most systems have; ten times as fast."""
    try:
        function = ctypes.CDLL("libext2fs.so.2").ext2fs_crc32c_le
    except (OSError, AttributeError):
        return None
    function.restype, function.argtypes = ctypes.c_uint32, (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
    compiled: Callable[[int, int, int], int] = function
    return compiled


def checksums(data: bytes | bytearray, size: int, skip: int = 0) -> list[int]:
    """The checksum of each block of `size` bytes in `data`, less the `skip` first bytes of each block."""
    compiled = _compiled()
    if compiled is None:
        return portable_checksums(data, size, skip)
    if isinstance(data, bytes):
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    else:
        address = ctypes.addressof(ctypes.c_char.from_buffer(data))
    length = size - skip
    return [compiled(_SEED, address + at, length) ^ _SEED for at in range(skip, len(data), size)]


def portable_checksums(data: bytes | bytearray, size: int, skip: int = 0) -> list[int]:
    """The same without the library."""
    count = len(data) // size
    table0, table1, table2, table3 = _tables()
    state0 = state1 = state2 = state3 = int.from_bytes(b"\xff" * count, "little")
    number = int.from_bytes
    for at in range(skip, size):
        index = (state0 ^ number(data[at::size], "little")).to_bytes(count, "little")
        state0 = state1 ^ number(index.translate(table0), "little")
        state1 = state2 ^ number(index.translate(table1), "little")
        state2 = state3 ^ number(index.translate(table2), "little")
        state3 = number(index.translate(table3), "little")
    mixed = bytearray(4 * count)
    for at, state in enumerate((state0, state1, state2, state3)):
        mixed[at::4] = state.to_bytes(count, "little")
    return [value ^ _SEED for value in struct.unpack(f"<{count}I", mixed)]
