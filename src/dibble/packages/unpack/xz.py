"""Decompressing .xz and .lzma with a newer liblzma than Python's own, where there is one.

liblzma decodes twice as fast since 5.6, and package files and kernel modules are the larger part of a build's work.
Python brings whatever the host had; the tools tree has a newer one, loaded here beside it. Where that cannot be loaded,
the module `lzma` serves.
"""

from __future__ import annotations

import ctypes
import lzma
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 1 << 18  # bytes of output at a time
_RUN = 0  # enum lzma_action, lzma/base.h
_OK, _STREAM_END, _BUF_ERROR = 0, 1, 10  # enum lzma_ret
_REASONS = {
    5: "not enough memory", 6: "it needs too much memory", 7: "it is in another format", 8: "its options are not known",
    9: "it is damaged", _BUF_ERROR: "it ends early",
}  # fmt: skip


class XzError(ValueError):
    """The data do not decompress."""


FAULTS = (XzError, lzma.LZMAError)


class Decompressor(Protocol):
    """One stream, with the manners of `lzma.LZMADecompressor`."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Stream(ctypes.Structure):
    """struct lzma_stream of lzma/base.h; its layout is part of the ABI of liblzma.so.5."""

    _fields_: ClassVar = [
        ("next_in", c_void_p), ("avail_in", c_size_t), ("total_in", c_uint64),
        ("next_out", c_void_p), ("avail_out", c_size_t), ("total_out", c_uint64),
        ("allocator", c_void_p), ("internal", c_void_p),
        ("reserved_pointers", c_void_p * 4), ("seek_position", c_uint64), ("reserved_integer", c_uint64),
        ("reserved_sizes", c_size_t * 2), ("reserved_enums", c_int * 2),
    ]  # fmt: skip


_loaded: ctypes.CDLL | None = None


def use(library: Path | None) -> bool:
    """Decompress with this liblzma.so.5 from now on, in this process; False, and Python's own, when that cannot be."""
    global _loaded  # noqa: PLW0603 - a worker process has one library
    _loaded = None
    if library is None:
        return False
    try:
        # RTLD_DEEPBIND: its calls within itself must not end in the older library that Python has loaded
        found = ctypes.CDLL(os.fspath(library), mode=os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
        found.lzma_auto_decoder.argtypes = [POINTER(_Stream), c_uint64, c_uint32]
        found.lzma_code.argtypes = [POINTER(_Stream), c_int]
        found.lzma_end.argtypes, found.lzma_end.restype = [POINTER(_Stream)], None
    except (OSError, AttributeError):
        return False
    _loaded = found
    return True


class XzDecompressor:
    """One stream, as of `lzma.LZMADecompressor`, whose methods raise XzError. For one thread at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._stream = _Stream()
        self._buffer = ctypes.create_string_buffer(_PIECE)
        self._input = b""
        self.eof = False
        self.unused_data = b""
        self.needs_input = True
        if status := self._library.lzma_auto_decoder(byref(self._stream), 2**64 - 1, 0):
            raise XzError(_REASONS.get(status, f"liblzma cannot begin: {status}"))

    def __del__(self) -> None:
        if stream := getattr(self, "_stream", None):
            self._library.lzma_end(byref(stream))

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """The next bytes, at most `max_length` unless that is negative; what is left of `data` is kept."""
        if self.eof:
            raise EOFError("the stream has ended")
        left = self._input + data if self._input else data
        stream = self._stream
        stream.next_in = ctypes.cast(c_char_p(left), c_void_p)
        stream.avail_in = len(left)
        parts: list[bytes] = []
        room = max_length
        while room:
            size = _PIECE if room < 0 else min(room, _PIECE)
            stream.next_out = ctypes.addressof(self._buffer)
            stream.avail_out = size
            status = self._library.lzma_code(byref(stream), _RUN)
            made = size - stream.avail_out
            parts.append(ctypes.string_at(self._buffer, made))
            room = room if room < 0 else room - made
            if status == _STREAM_END:
                self.eof = True
                break
            if status not in (_OK, _BUF_ERROR):
                raise XzError(_REASONS.get(status, f"liblzma says {status}"))
            if stream.avail_out:  # it wants more input
                break
        rest = left[len(left) - stream.avail_in :] if stream.avail_in else b""
        if self.eof:
            self.unused_data, self._input = rest, b""
        else:
            self._input = rest
        # with its room used up, it may hold more output
        self.needs_input = not self.eof and not rest and room != 0
        return b"".join(parts)


def decompressor() -> Decompressor:
    """For one stream. Its methods raise one of FAULTS."""
    return lzma.LZMADecompressor() if _loaded is None else XzDecompressor(_loaded)


def decompress(data: bytes) -> bytes:
    """All the streams of a file. Raises one of FAULTS."""
    found = []
    while True:
        one = decompressor()
        found.append(one.decompress(data))
        if not one.eof:
            raise XzError("it ends early")
        data = one.unused_data.lstrip(b"\0")  # stream padding, xz-file-format.txt 2.2
        if not data:
            return b"".join(found)
