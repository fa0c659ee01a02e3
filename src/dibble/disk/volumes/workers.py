"""Work on all bytes of a device in several processes, as Python's threads would wait for each other between blocks."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from dibble.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.disk.volumes.base import Region

PIECE = 1 << 20
"""Bytes in memory at a time, for each process; a multiple of all sizes of blocks."""
TASKS = 16
"""Pieces that a process is given at once."""


@contextlib.contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """Raises HostError when one of them is killed."""
    # fork: the modules are loaded, and no other program gets a key
    context = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise HostError(
            "a process that worked on a disk was killed",
            hint="if nobody killed it, the machine may have run out of memory: see dmesg",
        ) from error


def read_piece(source: Region, at: int) -> bytes:
    """The piece of a region that begins at `at`."""
    size = min(PIECE, source.size - at)
    with source.path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, source.offset + at)
    assert len(data) == size, "a region lies within its file"
    return data
