"""Compressed streams: what is in them, and that neither threads nor the sizes of what is written change it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import lzma
import random
from typing import TYPE_CHECKING

import pytest
import zstandard

from dibble.outputs.compressed import Gzip, Xz, Zstd, behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from dibble.outputs.compressed import Put, Stream

pytestmark = pytest.mark.unit

MIB = 1 << 20


def text(size: int) -> bytes:
    """Bytes that compress well, but not to nothing."""
    words = [hashlib.sha256(b"%d" % number).digest()[: number % 29 + 3] for number in range(500)]
    found = b"".join(words[number * number % 500] + b"%d" % number for number in range(size // 20))
    return (found * (size // max(len(found), 1) + 1))[:size]


def compressed(make: type[Gzip | Xz | Zstd], data: bytes, *, threads: int = 0, piece: int = 300_001) -> bytes:
    out = io.BytesIO()
    with make(out.write, threads=threads) as stream:
        for start in range(0, len(data), piece):
            stream.write(data[start : start + piece])
        stream.finish()
    return out.getvalue()


READERS: dict[type[Gzip | Xz | Zstd], Callable[[bytes], bytes]] = {
    Gzip: gzip.decompress,
    Xz: lzma.decompress,
    Zstd: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 3 * MIB + 12345])
def test_everything_comes_out_again(make: type[Gzip | Xz | Zstd], size: int) -> None:
    data = text(size)
    packed = compressed(make, data)
    assert READERS[make](packed) == data
    assert size < MIB or len(packed) < size / 2


@pytest.mark.parametrize(("make", "size"), [(Gzip, 9 * MIB), (Zstd, 20 * MIB), (Xz, 5 * MIB + 1)])
def test_the_bytes_depend_on_the_content_alone(
    make: type[Gzip | Xz | Zstd], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Xz, "_block", MIB)
    data = text(size)
    first = compressed(make, data, threads=1)
    assert compressed(make, data, threads=3, piece=5 * MIB + 1) == first
    assert READERS[make](first) == data


def test_an_xz_of_several_blocks_is_one_stream_that_tells_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Xz, "_block", MIB)
    packed = compressed(Xz, text(3 * MIB))
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    assert len(decoder.decompress(packed)) == 3 * MIB
    assert decoder.eof
    assert decoder.unused_data == b""
    assert packed[13] == 0xC0  # flags of the first block: both sizes are there


def test_a_block_of_gzip_refers_to_the_end_of_the_one_before() -> None:
    block = random.Random(1).randbytes(MIB)
    assert len(compressed(Gzip, block + block[-30_000:])) < len(compressed(Gzip, block)) + 1000


def test_a_gzip_says_nothing_of_when_and_where_it_was_made() -> None:
    assert compressed(Gzip, b"x")[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


@pytest.mark.parametrize("make", READERS)
def test_a_file_that_cannot_be_written_ends_the_work(make: type[Gzip | Xz | Zstd]) -> None:
    def full(data: bytes | memoryview) -> None:
        if data:
            raise OSError(28, "No space left on device")

    def write(put: Put, build: Callable[[Put], Stream]) -> None:
        with build(put) as stream:
            stream.write(text(2 * MIB))
            stream.finish()

    with pytest.raises(OSError, match="No space"):
        write(full, make)


def test_what_is_written_behind_comes_in_order_and_says_what_went_wrong() -> None:
    found = bytearray()
    with behind(found.extend) as put:
        for number in range(100):
            put(bytes([number]) * 1000)
    assert found == b"".join(bytes([number]) * 1000 for number in range(100))

    def full(data: bytes | memoryview) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), behind(full) as put:
        put(b"x")  # the end tells it at the latest
