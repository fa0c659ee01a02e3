"""Compressed members of a package as one stream of bytes, read in the amounts that a tar reader wants."""

from __future__ import annotations

import os
import zlib
from typing import IO, TYPE_CHECKING, Any, Protocol

from dibble.packages.unpack.ar import DamagedArchive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INPUT = 1 << 17  # bytes read at a time
OUTPUT = 1 << 20  # bytes unpacked at a time, where the decompressor lets itself be limited


class Decompressor(Protocol):
    """What lzma, bz2 and zlib have in common, for one stream; a file may hold several."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Stream:
    """The unpacked bytes of `size` bytes at the file's position, decompressed as the suffix of `name` says.

    Every method raises DamagedArchive when the data end early or do not decompress.
    """

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        self._chunks = _decompressed(_raw(file, size), name)
        self._chunk = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        end = self._at + count
        if end <= len(self._chunk):
            taken = self._chunk[self._at : end]
            self._at = end
            return taken
        parts = [self._chunk[self._at :]]
        count -= len(parts[0])
        while count > 0:
            self._next()
            parts.append(self._chunk[:count])
            self._at = len(parts[-1])
            count -= self._at
        return b"".join(parts)

    def skip(self, count: int) -> None:
        while (there := len(self._chunk) - self._at) < count:
            count -= there
            self._next()
        self._at += count

    def write_to(self, descriptor: int, count: int) -> None:
        """Write exactly `count` bytes to a file."""
        while count:
            if self._at == len(self._chunk):
                self._next()
            piece = memoryview(self._chunk)[self._at : self._at + count]
            written = os.write(descriptor, piece)
            self._at += written
            count -= written

    def drain(self) -> None:
        """Read to the end, so that the decompressor checks its checksums; padding after a tar archive is no fault."""
        for _ in self._chunks:
            continue

    def _next(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise DamagedArchive("is truncated: its tar archive ends early")
        self._chunk, self._at = chunk, 0


def _raw(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        data = file.read(min(INPUT, size))
        if not data:
            raise DamagedArchive("is truncated")
        size -= len(data)
        yield data


def _decompressed(raw: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Chunks that are never empty. Imports only the one decompressor that is wanted."""
    suffix = name.rpartition(".tar")[2]
    if suffix == "":
        return raw
    if suffix in (".xz", ".lzma"):
        from dibble.packages.unpack import xz

        return _limited(raw, xz.decompressor, *xz.FAULTS)
    if suffix == ".zst":
        import zstandard

        return _zstd(raw, zstandard)
    if suffix == ".gz":
        return _limited(raw, _Gzip, zlib.error)
    if suffix == ".bz2":
        import bz2

        return _limited(raw, bz2.BZ2Decompressor, OSError)
    raise DamagedArchive(f'has a member "{name}", compressed in a way that is not known')


class _Limited(Decompressor, Protocol):
    """A decompressor that keeps what it was given until it is asked for its output."""

    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def _limited(raw: Iterator[bytes], new: Callable[[], _Limited], *faults: type[Exception]) -> Iterator[bytes]:
    decompressor = new()
    any_fault: tuple[type[Exception], ...] = (*faults, EOFError)
    for piece in raw:
        data = piece
        while True:
            if decompressor.eof:
                data = decompressor.unused_data or data
                if not data.strip(b"\0"):  # xz files may be padded with zeros
                    break
                decompressor = new()
            try:
                unpacked = decompressor.decompress(data, OUTPUT)
            except any_fault as error:
                raise DamagedArchive(f"does not decompress ({error})") from error
            if unpacked:
                yield unpacked
            data = b""
            if decompressor.eof:
                if not decompressor.unused_data:
                    break
            elif decompressor.needs_input:
                break
    if not decompressor.eof:
        raise DamagedArchive("is truncated: its compressed data end early")


class _Gzip:
    """zlib's decompressor with the manners of lzma's."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with a gzip header

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail


def _zstd(raw: Iterator[bytes], zstandard: Any) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    for piece in raw:
        data = piece
        while data:
            if decompressor.eof:
                decompressor = zstandard.ZstdDecompressor().decompressobj()
            try:
                unpacked = decompressor.decompress(data)
            except zstandard.ZstdError as error:
                raise DamagedArchive(f"does not decompress ({error})") from error
            if unpacked:
                yield unpacked
            data = decompressor.unused_data if decompressor.eof else b""
    if not decompressor.eof:
        raise DamagedArchive("is truncated: its compressed data end early")
