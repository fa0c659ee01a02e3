"""CRC-32C: known values, and many blocks at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.disk import crc32c

pytestmark = pytest.mark.unit

# RFC 3720, appendix B.4, and the value that catalogues of checksums give for the digits
KNOWN = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (b"123456789", 0xE3069283),
]


@pytest.mark.parametrize(("data", "value"), KNOWN)
def test_known_values_come_out(data: bytes, value: int) -> None:
    assert crc32c.crc32c(data) == value
    assert crc32c.checksums(data, len(data)) == [value]
    assert crc32c.hashed(data, 0xFFFFFFFF) ^ 0xFFFFFFFF == value


@given(st.binary(min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 5))
def test_many_blocks_at_once_are_as_each_alone(block: bytes, count: int, skip: int) -> None:
    blocks = [bytes((byte + number) & 0xFF for byte in block) for number in range(count)]
    skip = min(skip, len(block) - 1)
    alone = [crc32c.hashed(one[skip:], 0xFFFFFFFF) ^ 0xFFFFFFFF for one in blocks]
    assert crc32c.checksums(b"".join(blocks), len(block), skip) == alone
    assert crc32c.checksums(bytearray(b"".join(blocks)), len(block), skip) == alone
