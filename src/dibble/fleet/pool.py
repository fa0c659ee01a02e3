"""What runs cells: a protocol, and what goes to and comes from it. All are plain values, so that they may go far."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Mapping, Sequence  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import Any, Protocol, TypeVar

from dibble.fleet.cells import Work  # noqa: TC001 - dataclass field type
from dibble.fleet.model import Attempt, OutputFile  # noqa: TC001 - dataclass field type

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One try at a cell. `directory` is the cell's own, where outputs, recipe and log stand."""

    work: Work
    directory: Path
    store: Path
    """The cache, of which cells on hosts take the downloads."""
    environment: Mapping[str, str]
    attempt: int = 1
    tree: Path | None = None
    """The root tree to build in; None: this machine's own."""
    host_directory: Path | None = None
    """Where a host keeps its store and its Python from one cell to the next."""

    @property
    def name(self) -> str:
        return self.work.cell.name


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came of a try; the fields are those of CellResult."""

    attempt: Attempt
    steps_run: int = 0
    steps_cached: int = 0
    timings: tuple[tuple[str, float], ...] = ()
    outputs: tuple[OutputFile, ...] = ()
    boot: str = ""
    interrupted: bool = False
    """It was stopped on our demand, and says nothing of the cell."""
    lost: bool = False
    """What ran it is gone, and it says nothing of the cell either: it is tried elsewhere, whatever its retries."""


@dataclass(frozen=True, slots=True)
class Progress:
    """An event of a cell's build, as `dibble build --json` prints it."""

    cell: str
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A try is over."""

    cell: str
    result: JobResult


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the pool that the user should know."""

    text: str
    warning: bool = False


Message = Progress | Ended | Notice


class Pool(Protocol):
    """Runs jobs somewhere; one by name of the registry's `pools`. All methods are called from one thread.

    It is made with the number of jobs at a time, None for as many as there is room for.
    """

    slots: int
    """Jobs at a time, for the display; it may change."""

    def free(self) -> int:
        """How many jobs may be started now."""

    def takes(self, work: Work) -> bool:
        """Whether there is room for this cell now. Asked while something is free."""

    def start(self, job: Job) -> None:
        """Begin a job that it takes; returns at once."""

    def wait(self, timeout_s: float) -> Sequence[Message]:
        """What has come meanwhile, in order; waits for the first of it at most so long.

        Raises DibbleError when nothing can run any more.
        """

    def stop(self) -> Sequence[Message]:
        """End what runs in good order, and give what comes until then. Nothing can be started any more."""

    def close(self) -> None:
        """Let go of everything; what runs is ended."""


@dataclass(slots=True)
class Seen:
    """What the events of a build told."""

    steps_run: int = 0
    steps_cached: int = 0
    timings: tuple[tuple[str, float], ...] = ()
    outputs: list[OutputFile] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    """Of outputs: format → path."""
    failed: Mapping[str, Any] | None = None


def come(messages: queue.SimpleQueue[T], timeout_s: float) -> Iterator[T]:
    """What is in a queue, waiting for the first at most so many seconds."""
    with contextlib.suppress(queue.Empty):
        yield messages.get(timeout=timeout_s)
        while True:
            yield messages.get_nowait()
