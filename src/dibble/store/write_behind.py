"""Copying what a build makes to a remote cache while the build goes on."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING

from dibble.store.archive import NotPortable
from dibble.store.refused import printable
from dibble.store.transport import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.events import Events
    from dibble.store.layers import Record
    from dibble.store.remote import RemoteStore
    from dibble.store.transfer import Pushing

WAIT_SECONDS = 600.0
"""How long a finished build waits for its copies. A place that stops answering is told much sooner (`transport.py`)."""


class WriteBehind:
    """One thread that copies, in the order in which things were made; what fails is told, and the build goes on."""

    def __init__(self, remote: RemoteStore, pushing: Pushing, events: Events) -> None:
        self._remote = remote
        self._pushing = pushing
        self._events = events
        self._jobs: queue.SimpleQueue[tuple[str, Callable[[], int]] | None] = queue.SimpleQueue()
        self._seen: set[str] = set()
        self._waiting = 0
        self._sent = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="write-behind", daemon=True)
        self._thread.start()

    def layer(self, record: Record) -> None:
        """Copy a layer of the store, later."""
        self._add(f"layer {record.id}", lambda: self._pushing.layer(record))

    def output(self, key: str, folder: Path) -> None:
        """Copy an output's files, later."""
        self._add(f"output {key}", lambda: self._pushing.output(key, folder))

    def finish(self) -> None:
        """Wait until all is copied, WAIT_SECONDS at most."""
        self._jobs.put(None)
        if self._thread.is_alive():
            until = time.monotonic() + WAIT_SECONDS
            with self._events.activity("push to the remote cache") as activity:
                while self._thread.is_alive() and time.monotonic() < until:
                    self._thread.join(0.1)
                    activity.progress(self._sent, unit="bytes")
        if self._thread.is_alive():
            self._stopped = True
            self._events.note(
                f"{self._waiting} entries were not copied to the remote cache {self._remote.name} in"
                f" {WAIT_SECONDS:.0f} s; a later build that has something to do copies them",
                "warning",
            )

    def abandon(self) -> None:
        """Copy nothing more, and say nothing: the build is over for another reason."""
        self._stopped = True
        self._jobs.put(None)

    def _add(self, name: str, job: Callable[[], int]) -> None:
        if name not in self._seen:
            self._seen.add(name)
            self._waiting += 1
            self._jobs.put((name, job))

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None and not self._stopped and self._remote.is_up:
            name, job = item
            try:
                self._sent += job()
            except Unreachable as error:
                self._stop(f"cannot be written: {error}")
            except NotPortable as error:
                self._note(f"{error}; it is not copied to the remote cache")
            except OSError as error:
                self._note(f"{name} cannot be copied to the remote cache: {error.strerror}")
            self._waiting -= 1

    def _stop(self, why: str) -> None:
        self._note(f"the remote cache {self._remote.name} {why}; nothing more is copied to it")
        self._stopped = True

    def _note(self, text: str) -> None:
        if not self._stopped:
            with contextlib.suppress(ValueError):  # the display is closed: the build was over before
                self._events.note(printable(text), "warning")
