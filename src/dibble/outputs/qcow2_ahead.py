"""Compresses clusters of a disk while it is still being written, so that little is left to do when it is complete.

What is compressed ahead is a guess: a later write may change the cluster. So each one is kept with a digest of what it
was made from, and `qcow2_file.py` takes it only when the finished disk has that content. How much was guessed, and how
well, changes the time that a file takes, never its bytes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from typing import TYPE_CHECKING

from dibble.outputs.qcow2_cluster import CLUSTER, Compressor
from dibble.store.sparse import data_ranges, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

_MAX_THREADS = 4  # more than keep up with one program that writes
_LOOK_S = 0.03
"""Between two looks at what has appeared: mke2fs writes some 10 MiB in that time."""


class Ahead:
    """Follows one raw file, as a context manager that ends its threads. Holds one cluster a thread and 150 bytes for
    each one that is done; the compressed data goes to an unnamed file in `directory`.

    Without `threads` one processor is left to whoever writes the disk; on a single one nothing is done ahead.
    """

    def __init__(self, raw: Path, directory: Path, *, threads: int | None = None) -> None:
        if threads is None:
            threads = min(len(os.sched_getaffinity(0)) - 1, _MAX_THREADS)
        self._source = os.open(raw, os.O_RDONLY | os.O_CLOEXEC)
        self._spill = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed in `__exit__`
        self._size = os.fstat(self._source).st_size
        self._lock = threading.Lock()
        self._end = 0  # of the spilled data
        self._done: dict[int, tuple[bytes, int, int]] = {}  # cluster → digest, offset and length in the spill
        self._stopped = threading.Event()
        self._work: Iterator[int] = self._settled()
        self._running = [threading.Thread(target=self._run, name="qcow2 ahead") for _ in range(threads)]

    def __enter__(self) -> Ahead:
        for thread in self._running:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._spill.close()
        os.close(self._source)

    def stop(self) -> None:
        """Guess no more: the disk is complete, or never will be. Waits for the clusters that are being compressed."""
        self._stopped.set()
        for thread in self._running:
            if thread.ident is not None:
                thread.join()

    def guess(self, number: int) -> None:
        """Compress a cluster as it is now."""
        self._guess(number, Compressor())

    def take(self, number: int, plain: bytes) -> bytes | None:
        """What cluster `number` was compressed to, if it was made from this content. After `stop`, from any thread."""
        found = self._done.get(number)
        if found is None or found[0] != _digest(plain):
            return None
        return os.pread(self._spill.fileno(), found[2], found[1])

    def _run(self) -> None:
        compressor = Compressor()
        while not self._stopped.is_set():
            with self._lock:
                number = next(self._work)
            if number < 0:
                self._stopped.wait(_LOOK_S)
                continue
            try:
                self._guess(number, compressor)
            except OSError:
                return  # no room for guesses: who writes the file itself finds out what is wrong, and tells it

    def _guess(self, number: int, compressor: Compressor) -> None:
        plain = os.pread(self._source, CLUSTER, number * CLUSTER).ljust(CLUSTER, b"\0")
        packed = compressor.compress(plain)
        if packed is None:
            return
        with self._lock:
            offset = self._end
            self._end += len(packed)
        write_at(self._spill.fileno(), packed, offset)
        self._done[number] = (_digest(plain), offset, len(packed))

    def _settled(self) -> Iterator[int]:
        """For ever: clusters that seem to be complete, each once, and -1 whenever there is none at the moment.

        Such a cluster has no hole, and had none when it was looked at before.
        """
        given: set[int] = set()
        before: set[int] = set()
        while True:
            full = set(self._full()) - given
            for number in sorted(full & before):
                given.add(number)
                yield number
            before = full
            yield -1

    def _full(self) -> Iterator[int]:
        for start, length in data_ranges(self._source, 0, self._size):
            yield from range(-(-start // CLUSTER), (start + length) // CLUSTER)


def _digest(plain: bytes) -> bytes:
    return hashlib.sha256(plain).digest()
