"""What programs an initramfs holds, and for which machine.

A kernel takes cpio archives (newc) one after the other, each perhaps compressed, with zeros between (kernel,
Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import io
import struct
from typing import IO, TYPE_CHECKING, cast

from dibble.sandbox.binfmt import known

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NEWC = (b"070701", b"070702")
_HEADER = 110  # bytes of a newc header: the magic and 13 numbers of 8 hexadecimal digits
_TRAILER = b"TRAILER!!!"
_ELF = b"\x7fELF"
UNKNOWN = "something that is compressed in another way than zstd, xz, gzip or bzip2"


def foreign_program(path: Path, arch: str) -> str:
    """The first ELF file that is not for `arch`, or `UNKNOWN` where the file cannot be read; "" when all are for it."""
    machine = known(arch)
    try:
        with path.open("rb") as file:
            for name, head in _files(file):
                if head.startswith(_ELF) and len(head) >= 20:
                    (number,) = struct.unpack_from(f"{machine.order}H", head, 18)  # e_machine, elf(5)
                    if (head[4], head[5], number) != (machine.bits // 32, 1 if machine.little else 2, machine.machine):
                        return name
    except (ValueError, EOFError, OSError):
        return UNKNOWN
    return ""


def _files(file: IO[bytes] | _Prefixed) -> Iterator[tuple[str, bytes]]:
    """(name, first bytes) of every file. Raises ValueError, EOFError or OSError for what cannot be read."""
    while True:
        start = _skip_zeros(file)
        if start is None:
            return
        if start[:6] in _NEWC:
            yield from _archive(_Prefixed(start, file))
        else:
            content = _decompressed(start, file)
            first = content.read(1)
            if not first:  # a frame that is cut off gives nothing, without an error
                raise EOFError("nothing is in it")
            yield from _files(_Prefixed(first, content))
            return


def _skip_zeros(file: IO[bytes] | _Prefixed) -> bytes | None:
    while block := file.read(4):
        if block != bytes(4)[: len(block)]:
            return block + file.read(4)
    return None


class _Prefixed:
    """A stream with some bytes put back in front, that knows its position for padding."""

    def __init__(self, start: bytes, rest: IO[bytes] | _Prefixed) -> None:
        self._start = start
        self._rest = rest
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes, less only at the end."""
        data, self._start = self._start[:size] if size >= 0 else self._start, self._start[size:] if size >= 0 else b""
        while size < 0 or len(data) < size:
            more = self._rest.read(size - len(data) if size >= 0 else 1 << 20)
            if not more:
                break
            data += more
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise EOFError("the archive is cut off")
        return data

    def align(self) -> None:
        self.exactly(-self.position % 4)


def _archive(stream: _Prefixed) -> Iterator[tuple[str, bytes]]:
    while True:
        header = stream.exactly(_HEADER)
        if header[:6] not in _NEWC:
            raise ValueError("no cpio header")
        size, name_size = int(header[54:62], 16), int(header[94:102], 16)  # c_filesize, c_namesize
        name = stream.exactly(name_size)[:-1]
        stream.align()
        head = stream.exactly(min(size, 64))
        left = size - len(head)
        while left:
            left -= len(stream.exactly(min(left, 1 << 20)))
        stream.align()
        if name == _TRAILER:
            return
        yield name.decode("utf-8", "replace"), head


def _decompressed(start: bytes, rest: IO[bytes] | _Prefixed) -> IO[bytes]:
    whole = io.BytesIO(start + rest.read())
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(whole, read_across_frames=True)
    if start.startswith(b"\xfd7zXZ"):
        import lzma

        return lzma.open(whole)
    if start.startswith(b"\x1f\x8b"):
        import gzip

        return cast("IO[bytes]", gzip.open(whole))
    if start.startswith(b"BZh"):
        import bz2

        return bz2.open(whole)
    raise ValueError("an unknown compression")
