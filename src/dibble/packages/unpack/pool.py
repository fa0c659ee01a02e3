"""Worker processes that unpack packages, in the foreground or ahead of need, each package once.

They run at a lower priority than maintainer scripts, whose time nobody can shorten. `begin` starts them by fork, so
call it first while no other thread starts a program: a worker would inherit its pipes.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dibble.errors import HostError, PackageError
from dibble.packages.unpack import xz
from dibble.packages.unpack.deb import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dibble.events import Events

NICENESS = 5  # a script that competes with a worker for a core gets three quarters of it (sched(7))


class UnpackPool:
    """Unpacks into `packages_dir/SHA256[:2]/SHA256`, with the given liblzma.so.5. Safe to use from several threads."""

    def __init__(self, packages_dir: Path, events: Events, liblzma: Path | None = None) -> None:
        self._liblzma = liblzma
        self._packages_dir = packages_dir
        self._events = events
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}
        self._urgent: deque[_Task] = deque()
        self._waiting: deque[_Task] = deque()
        self._busy = 0
        self._pool: ProcessPoolExecutor | None = None
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._closed = False

    def begin(self) -> None:
        """Start the workers, if they are not there yet."""
        with self._lock:
            if self._pool is None and not self._closed:
                before = set(multiprocessing.active_children())
                # fork: the modules are loaded, and workers touch neither threads nor events of this process
                context = multiprocessing.get_context("fork")
                count = os.cpu_count() or 1
                self._pool = ProcessPoolExecutor(
                    count, mp_context=context, initializer=_be_a_worker, initargs=(self._liblzma,)
                )
                for _ in range(count):
                    self._pool.submit(os.getpid)
                self._workers = [child for child in multiprocessing.active_children() if child not in before]

    def start(self, debs: Mapping[str, Path]) -> None:
        """Begin to unpack packages, given as sha256 → .deb, biggest first; faults show when they are waited for."""
        for sha256 in sorted(debs, key=lambda sha256: -debs[sha256].stat().st_size):
            place = self.place(sha256)
            with self._lock:
                if sha256 in self._running or place.exists():
                    continue
            place.parent.mkdir(parents=True, exist_ok=True)
            future = self.submit(unpack, debs[sha256], place)
            with self._lock:
                self._running[sha256] = future

    def finish(self, debs: Mapping[str, Path]) -> None:
        """Unpack packages to the end. Raises as `unpack`, and HostError when a worker was killed."""
        self.start(debs)
        with self._lock:
            waiting = {self._running[sha256]: sha256 for sha256 in debs if sha256 in self._running}
        waiting = {future: sha256 for future, sha256 in waiting.items() if not self.place(sha256).exists()}
        if not waiting:
            return
        with self._events.activity("unpack") as activity:
            for done, future in enumerate(as_completed(waiting)):
                try:
                    future.result()
                except BaseException:
                    with self._lock:
                        del self._running[waiting[future]]  # to be tried again, perhaps with another file
                    raise
                activity.progress(done + 1, len(waiting), "packages")

    def place(self, sha256: str) -> Path:
        return self._packages_dir / sha256[:2] / sha256

    def submit(self, function: Callable[..., Any], *arguments: Any, urgent: bool = False) -> Future[Any]:
        """Let a worker call a function of a module; what is urgent goes first.

        The future has a HostError when the workers are gone.
        """
        self.begin()
        task = _Task(Future(), function, arguments)
        with self._lock:
            if self._pool is None:
                raise PackageError("the build is over")
            (self._urgent if urgent else self._waiting).append(task)
        self._feed()
        return task.future

    def _feed(self) -> None:
        """Give the workers what waits, one task more than there are workers at a time: the rest can be overtaken."""
        while True:
            with self._lock:
                if self._pool is None or self._busy > len(self._workers) or not (self._urgent or self._waiting):
                    return
                task = (self._urgent or self._waiting).popleft()
                try:
                    running = self._pool.submit(task.function, *task.arguments)
                except (BrokenProcessPool, RuntimeError):
                    running = None
                else:
                    self._busy += 1
            if running is None:
                task.future.set_exception(_killed())
            else:
                running.add_done_callback(functools.partial(self._done, task))

    def _done(self, task: _Task, running: Future[Any]) -> None:
        with self._lock:
            self._busy -= 1
        if running.cancelled():
            task.future.cancel()
        elif (error := running.exception()) is not None:
            task.future.set_exception(_killed() if isinstance(error, BrokenProcessPool) else error)
        else:
            task.future.set_result(running.result())
        self._feed()

    def close(self) -> None:
        """End the workers at once, whatever they are doing; what they were making can be made again."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            never = [*self._urgent, *self._waiting]
        for task in never:
            task.future.cancel()
        if pool is not None:
            for worker in self._workers:
                worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Task:
    future: Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def _killed() -> HostError:
    return HostError(
        "a process that unpacked packages was killed",
        hint="if nobody killed it, the machine may have run out of memory: see dmesg",
    )


def _be_a_worker(liblzma: Path | None) -> None:
    """In a worker: let Ctrl-C end it at once, without a traceback; the parent has its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.nice(NICENESS)
    xz.use(liblzma)
