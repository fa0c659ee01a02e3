"""Bringing the content of a device to where it lies in the devices below, so that holes stay holes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dibble.store.sparse import data_ranges, write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dibble.disk.volumes.base import Region

_CHUNK = 1 << 20  # bytes in memory at a time


def scatter(
    source: Region, targets: Mapping[str, Region], pieces: Callable[[int, int], Iterable[tuple[str, int, int, int]]]
) -> None:
    """Copy the data of `source` to where `pieces(at, size)` says: (target, offset in it, offset in source, size).

    Zeros are not written: the targets are new.
    """
    paths = {region.path for region in targets.values()}
    files = {path: os.open(path, os.O_RDWR) for path in paths}
    reading = os.open(source.path, os.O_RDONLY)
    try:
        for start, length in data_ranges(reading, source.offset, source.offset + source.size):
            for target, offset, at, size in pieces(start - source.offset, length):
                region = targets[target]
                assert offset + size <= region.size, "a piece stands within its target"
                _copy(reading, source.offset + at, files[region.path], region.offset + offset, size)
    finally:
        for file in (reading, *files.values()):
            os.close(file)


def copy(source: Region, target: Region) -> None:
    """Copy the data of `source` to the beginning of `target`."""
    scatter(source, {"": target}, lambda at, size: [("", at, at, size)])


def _copy(source: int, start: int, target: int, offset: int, size: int) -> None:
    while size:
        data = os.pread(source, min(size, _CHUNK), start)
        if not data:
            return
        if data.count(0) < len(data):
            write_at(target, data, offset)
        start, offset, size = start + len(data), offset + len(data), size - len(data)


def write_into(region: Region, offset: int, data: bytes) -> None:
    """Write `data` at an offset of the region."""
    assert offset + len(data) <= region.size, "what is written stands within its region"
    with region.path.open("r+b") as file:
        file.seek(region.offset + offset)
        file.write(data)
