"""What happens during a run, as values; whoever shows or records it listens and changes nothing.

Every event has the wall-clock `time` (seconds since the epoch) at which it was sent, filled in by `Events`.
"""

from __future__ import annotations

import dataclasses
import threading
import time as clock
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStarted(Event):
    name: str
    version: str
    requested: tuple[str, ...]
    elements: tuple[str, ...]
    steps: int
    """Of the plan; `steps_to_run` of them are not in the store."""
    steps_to_run: int = 0
    seconds: float | None = None
    """How long it will take, by earlier builds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """`step` is the step's id, unique in a build, e.g. `install.d/01-package-installs`."""

    step: str
    phase: str
    element: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCached(Event):
    """The step's layer was in the store; nothing ran."""

    step: str
    phase: str
    network: tuple[str, ...] = ()
    """The servers that it reached when it ran, `age_s` seconds ago."""
    age_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """`bytes` is the size of the new layer; `status` the exit status."""

    step: str
    seconds: float
    status: int = 0
    bytes: int = 0
    network: tuple[str, ...] = ()
    """The servers that it reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity(Event):
    """A named stretch of work inside or beside a step (resolve, download, unpack, mkfs …) begins or goes on.

    `done` and `total` count `unit`s (bytes, packages); `total` 0 means unknown. `finished` closes it.
    """

    name: str
    done: int = 0
    total: int = 0
    unit: Literal["bytes", "packages", "files", ""] = ""
    finished: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLine(Event):
    """One line a step or a tool printed, without its line end."""

    text: str
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Event):
    """Something the user should know; `warning` is shown even when quiet."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellOpened(Event):
    """A person, or a command of theirs, is in the tree at `point` (`before-install`); the terminal is theirs."""

    point: str
    inside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellClosed(Event):
    """The terminal is ours again; `status` is that of the shell or command."""

    point: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactWritten(Event):
    """An output stands complete under its final name. `allocated` is bytes on disk, `size` the apparent size."""

    path: str
    format: str
    size: int
    allocated: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFinished(Event):
    """`timings` is (what, seconds) in the order things happened."""

    seconds: float
    status: int
    steps_run: int
    steps_cached: int
    timings: tuple[tuple[str, float], ...] = ()


class Reporter(Protocol):
    """Listens. `handle` may be called from any thread, one call at a time."""

    def handle(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Events:
    """Hands each event to every reporter, one at a time, stamped with the time."""

    def __init__(self, reporters: Iterable[Reporter] = ()) -> None:
        self._reporters = list(reporters)
        self._lock = threading.Lock()

    def add(self, reporter: Reporter) -> None:
        self._reporters.append(reporter)

    def send(self, event: Event) -> None:
        stamped = dataclasses.replace(event, time=clock.time())
        with self._lock:
            for reporter in self._reporters:
                reporter.handle(stamped)

    def note(self, text: str, level: Literal["info", "warning"] = "info") -> None:
        self.send(Note(text=text, level=level))

    def activity(self, name: str) -> RunningActivity:
        """Begin a stretch of work; use as a context manager and call `progress`."""
        return RunningActivity(self, name)

    def close(self) -> None:
        for reporter in self._reporters:
            reporter.close()


class RunningActivity:
    """A stretch of work that is shown while it goes on. Sends at most some 20 progress events a second."""

    def __init__(self, events: Events, name: str) -> None:
        self._events = events
        self._name = name
        self._began = 0.0
        self._last_sent = 0.0
        self._state: dict[str, Any] = {}  # the last progress: done, total, unit

    def __enter__(self) -> RunningActivity:
        self._began = clock.monotonic()
        self._events.send(Activity(name=self._name))
        return self

    def progress(self, done: int, total: int = 0, unit: Literal["bytes", "packages", "files", ""] = "") -> None:
        self._state = {"done": done, "total": total, "unit": unit}
        now = clock.monotonic()
        if now - self._last_sent >= 0.05:
            self._last_sent = now
            self._events.send(Activity(name=self._name, seconds=now - self._began, **self._state))

    def __exit__(self, *_: object) -> None:
        seconds = clock.monotonic() - self._began
        self._events.send(Activity(name=self._name, seconds=seconds, finished=True, **self._state))


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain JSON data; `event` holds its class name."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}
