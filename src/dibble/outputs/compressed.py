"""Streams compressed on all processors, and always to the same bytes: where one is cut depends on its content's length.

gzip and xz are cut into blocks that are compressed one beside the other. What comes out is one member (RFC 1952) or one
stream (The .xz File Format, 1.1.0), so that every reader takes it. zstd does the same by itself (RFC 8878).
"""

from __future__ import annotations

import lzma
import struct
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import zstandard

from dibble.outputs.pieces import processors

if TYPE_CHECKING:
    from types import TracebackType

Put: TypeAlias = Callable[[bytes | memoryview], object]
"""Takes the bytes of a file, in order."""


@contextmanager
def behind(put: Put) -> Iterator[Put]:
    """Take the next bytes while those before are written in a thread. What cannot be written is raised by a later call,
    or at the end. What is given must stay as it is until the next call returns."""
    with ThreadPoolExecutor(1, "write") as pool:
        last: Future[object] = pool.submit(bool)

        def later(data: bytes | memoryview) -> None:
            nonlocal last
            last.result()
            last = pool.submit(put, data)

        yield later
        last.result()


class Stream(Protocol):
    """A compressed stream that is being written, as a context manager; `write` may hold back what it is given."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends threads. A stream that was not finished is worth nothing."""
        ...

    def write(self, data: bytes | memoryview) -> None: ...

    def finish(self) -> None:
        """Write the rest. Nothing comes after it."""
        ...


class Zstd:
    """One frame with a checksum. Level 9 is an eighth smaller than zstd's own default, and thrice as slow."""

    _LEVEL = 9

    def __init__(self, put: Put, *, threads: int = 0) -> None:
        compressor = zstandard.ZstdCompressor(level=self._LEVEL, threads=threads or processors(), write_checksum=True)
        self._put = put
        self._stream = compressor.compressobj()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Its threads end with the object."""

    def write(self, data: bytes | memoryview) -> None:
        self._put(self._stream.compress(data))

    def finish(self) -> None:
        self._put(self._stream.flush())


class _Blocks(ABC):
    """Cuts a stream into blocks and compresses them in threads; holds two blocks a thread."""

    _block: int

    def __init__(self, put: Put, *, threads: int = 0) -> None:
        self._put = put
        self._threads = threads or self._most_threads()
        self._pool = ThreadPoolExecutor(self._threads, type(self).__name__)
        self._pending = bytearray()
        self._waiting: deque[Future[bytes]] = deque()
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def write(self, data: bytes | memoryview) -> None:
        self._pending += data
        while len(self._pending) >= self._block:
            block = bytes(self._pending[: self._block])
            del self._pending[: self._block]
            self._submit(block)

    def finish(self) -> None:
        if self._pending:
            self._submit(bytes(self._pending))
        while self._waiting:
            self._take()
        self._end()

    def _submit(self, block: bytes) -> None:
        if len(self._waiting) >= 2 * self._threads:
            self._take()
        self._waiting.append(self._pool.submit(self._work(block)))

    def _take(self) -> None:
        self._taken(self._waiting.popleft().result())

    def _most_threads(self) -> int:
        return processors()

    @abstractmethod
    def _begin(self) -> None:
        """Write what comes before the blocks."""

    @abstractmethod
    def _work(self, block: bytes) -> Callable[[], bytes]:
        """What a thread has to do for the next block."""

    @abstractmethod
    def _taken(self, done: bytes) -> None:
        """Write a block that has been compressed; called in their order."""

    @abstractmethod
    def _end(self) -> None:
        """Write what comes behind the blocks."""


class Gzip(_Blocks):
    """One member without a name or a time, at zlib's own level; 9 would gain half a percent in twice the time.

    Each block begins with what came before it as its dictionary, and ends at a byte (RFC 1951, 3.2.4).
    """

    _block = 1 << 20
    _LEVEL = 6
    _WINDOW = 1 << 15  # RFC 1951, 2: distances reach 32 KiB back

    def _begin(self) -> None:
        self._before = b""
        self._checksum = 0
        self._length = 0
        self._put(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")  # RFC 1952, 2.3: deflate, no flags, no time, unknown system

    def _work(self, block: bytes) -> Callable[[], bytes]:
        before, self._before = self._before, block[-self._WINDOW :]
        self._checksum = zlib.crc32(block, self._checksum)
        self._length += len(block)

        def compress() -> bytes:
            deflate = zlib.compressobj(self._LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
            return deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)

        return compress

    def _taken(self, done: bytes) -> None:
        self._put(done)

    def _end(self) -> None:
        self._put(b"\x03\0" + struct.pack("<II", self._checksum, self._length & 0xFFFFFFFF))  # an empty last block


class Xz(_Blocks):
    """One stream of blocks whose sizes stand in their headers, so that `xz -T` reads them one beside the other too.

    Numbers are those of section 3 and 4 of The .xz File Format.
    """

    _block = 16 << 20  # twice the dictionary; xz's own is three times, for some 0.1 %
    _PRESET = 6
    _MOST_THREADS = 4  # liblzma holds 94 MiB for each at this preset
    _CHECK_SIZE = 8
    _FLAGS = b"\0\x04"  # the check is a CRC64

    def _most_threads(self) -> int:
        return min(processors(), self._MOST_THREADS)

    def _begin(self) -> None:
        self._records = bytearray()
        self._count = 0
        self._put(b"\xfd7zXZ\0" + self._FLAGS + _crc(self._FLAGS))

    def _work(self, block: bytes) -> Callable[[], bytes]:
        def compress() -> bytes:
            return lzma.compress(block, lzma.FORMAT_XZ, lzma.CHECK_CRC64, self._PRESET)

        return compress

    def _taken(self, done: bytes) -> None:
        """The one block of a stream of its own, with its sizes put into its header."""
        index_size = 4 * (int.from_bytes(done[-8:-4], "little") + 1)
        unpadded, at = _number(done, len(done) - 12 - index_size + 2)  # behind the mark and the number of records
        plain, _ = _number(done, at)
        old = 4 * (done[12] + 1)
        filters = done[14:17]  # LZMA2 has a number and one byte of properties
        data = done[12 + old : -12 - index_size]
        fields = b"\xc0" + _encoded(unpadded - old - self._CHECK_SIZE) + _encoded(plain) + filters
        size = len(fields) + 1 + 4
        size += -size % 4
        header = (bytes((size // 4 - 1,)) + fields).ljust(size - 4, b"\0")
        self._put(header + _crc(header) + data)
        self._records += _encoded(unpadded - old + size) + _encoded(plain)
        self._count += 1

    def _end(self) -> None:
        index = b"\0" + _encoded(self._count) + self._records
        index += bytes(-len(index) % 4)
        back = struct.pack("<I", len(index) // 4) + self._FLAGS
        self._put(index + _crc(index) + _crc(back) + back + b"YZ")


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def _encoded(number: int) -> bytes:
    """A number of .xz: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
