"""LZO's streams, unpacked: each kind of instruction, and what no compressor makes."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.read.lzo import BadData, segments, unpacked

pytestmark = pytest.mark.unit

END = b"\x11\0\0"


def extent(*streams: bytes) -> bytes:
    body = b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)
    return struct.pack("<I", 4 + len(body)) + body


def test_a_short_run_is_followed_by_a_copy_of_it() -> None:
    # 4 literals, then 5 bytes from 4 before
    stream = bytes([17 + 4]) + b"abcd" + bytes([(5 - 1) << 5 | 3 << 2, 0]) + END
    assert unpacked(stream, 100) == b"abcdabcda"


def test_a_long_run_has_its_length_in_further_bytes() -> None:
    stream = bytes([0, 0, 300 - 3 - 15 - 255]) + b"x" * 300 + END
    assert unpacked(stream, 4096) == b"x" * 300


def test_segments_stand_one_after_another_and_the_rest_is_left_out() -> None:
    data = extent(bytes([17 + 4]) + b"abcd" + END, bytes([17 + 5]) + b"efghi" + END)
    assert segments(data, 7) == b"abcdefg"


@pytest.mark.parametrize(
    "stream",
    [bytes([17 + 4]) + b"ab", bytes([17 + 4]) + b"abcd" + bytes([0x40, 9]) + END, b"\x00\x00\x00"],
    ids=["literals that are not there", "from before the beginning", "an endless length"],
)
def test_what_is_cut_off_is_refused(stream: bytes) -> None:
    with pytest.raises(BadData):
        segments(extent(stream), 100)


def test_more_than_a_sector_is_refused() -> None:
    with pytest.raises(BadData):
        segments(extent(bytes([17 + 4]) + b"abcd" + b"\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0" + END), 10_000)


@given(st.binary(max_size=200))
def test_anything_else_is_refused_or_ends(data: bytes) -> None:
    with contextlib.suppress(BadData):
        assert len(segments(data, 1000)) <= 1000
