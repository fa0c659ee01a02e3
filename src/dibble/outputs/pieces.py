"""Reading a raw disk from front to back without its holes, with the work on each piece done on all processors."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from dibble.errors import OutputError
from dibble.store.sparse import data_ranges, write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


@contextmanager
def opened(raw: Path, target: Path) -> Iterator[tuple[int, int]]:
    """The raw disk to read and the new file to write, as descriptors."""
    source = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sink = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            yield source, sink
        finally:
            os.close(sink)
    finally:
        os.close(source)


def refuse_beyond(size: int, limit: int, form: str, *, other: str = "") -> None:
    """Raise OutputError when a disk of `size` bytes is greater than what a format can hold."""
    if size > limit:
        raise OutputError(
            f"the disk of {size >> 30} GiB is too great for a {form}, which holds at most {limit >> 30} GiB",
            hint="give a smaller size with --image-size" + (f", or take {other}" if other else ""),
        )


def pieces_of_data(source: int, size: int, piece: int = PIECE) -> Iterator[int]:
    """The offsets, ascending multiples of `piece`, of the pieces that are not one hole. They may hold zeros only."""
    position = 0
    for start, length in data_ranges(source, 0, size):
        position = max(position, start - start % piece)
        while position < start + length:
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
