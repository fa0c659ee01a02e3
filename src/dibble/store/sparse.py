"""Files with holes: where their data lies, and copying it so that holes stay holes (lseek(2), SEEK_DATA)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from dibble.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def data_ranges(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each part of an open file that holds data, between `begin` and `end` (bytes)."""
    position = begin
    while position < end:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # only a hole is left
        if start >= end:
            return
        position = min(os.lseek(descriptor, start, os.SEEK_HOLE), end)
        yield start, position - start


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes; shares the blocks where the file system can (copy_file_range(2))."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        for begin, length in data_ranges(reader.fileno(), 0, size):
            start, end = begin, begin + length
            while start < end:
                try:
                    count = os.copy_file_range(reader.fileno(), writer.fileno(), end - start, start, start)
                except OSError:
                    os.lseek(reader.fileno(), start, os.SEEK_SET)
                    os.lseek(writer.fileno(), start, os.SEEK_SET)
                    count = os.sendfile(writer.fileno(), reader.fileno(), start, end - start)
                if count == 0:
                    raise StoreError(f"{source} became shorter while it was copied")
                start += count
