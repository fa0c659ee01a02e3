"""Reading a raw disk from front to back without its holes, with the work on each piece done on all processors."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dibble.events import RunningActivity

T = TypeVar("T")

PIECE = 1 << 20
_MAX_THREADS = 16
_UNIT = 64 << 10
"""What of a piece is written or left out: as little as `qemu-img convert` would is 4 KiB, for 16 times the calls."""
_NOTHING = bytes(PIECE)


def processors() -> int:
    """How many threads are worth while."""
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)


def pieces_of_data(source: int, size: int, piece: int = PIECE) -> Iterator[int]:
    """The offsets, ascending multiples of `piece`, of the pieces that are not one hole. They may hold zeros only."""
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        position = max(position, start - start % piece)
        while position < end:
            yield position
            position += piece


def worked(
    source: int, size: int, work: Callable[[int, bytes], T], *, threads: int = 0, piece: int = PIECE
) -> Iterator[tuple[int, T]]:
    """For each piece of data, in order, its offset and what `work(offset, content)` makes of it.

    The last piece may be shorter. Holds four pieces and results a thread; `threads` 0 means one a processor.
    """
    threads = threads or processors()

    def read(start: int) -> T:
        return work(start, os.pread(source, min(piece, size - start), start))

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[int, Future[T]]] = deque()
        try:
            for start in pieces_of_data(source, size, piece):
                waiting.append((start, pool.submit(read, start)))
                if len(waiting) >= 4 * threads:
                    begun, done = waiting.popleft()
                    yield begun, done.result()
            while waiting:
                begun, done = waiting.popleft()
                yield begun, done.result()
        finally:
            for _, future in waiting:
                future.cancel()


def filled(source: int, size: int, activity: RunningActivity | None = None) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each piece that is not all zeros, in order; the last one may be shorter."""
    for start in pieces_of_data(source, size):
        data = os.pread(source, min(PIECE, size - start), start)
        if not is_zero(data):
            yield start, data
        if activity:
            activity.progress(min(start + PIECE, size), size, "bytes")


def is_zero(data: bytes) -> bool:
    """Whether there is nothing but zeros in at most one piece."""
    return data == (_NOTHING if len(data) == PIECE else _NOTHING[: len(data)])


def write_filled(sink: int, data: bytes, offset: int) -> None:
    """Write a piece, leaving holes where it has nothing."""
    start = 0
    zeros = _NOTHING[:_UNIT]
    while start < len(data):
        end = start
        while end < len(data) and data[end : end + _UNIT] != zeros[: len(data) - end]:
            end += _UNIT
        if end > start:
            write_at(sink, data[start:end], offset + start)
        start = end + _UNIT


def write_at(sink: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(sink, view, offset)
        view, offset = view[count:], offset + count
