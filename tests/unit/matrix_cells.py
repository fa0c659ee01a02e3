"""Cells, and a pool that does what a test says, for tests of what decides when a cell runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.events import Events
from dibble.fleet.cells import Work
from dibble.fleet.model import Attempt, Cell, FailureClass, MatrixRun, Outcome
from dibble.fleet.pool import Ended, Job, JobResult, Message
from dibble.fleet.run import Runner, Settings
from dibble.fleet.spec import Policy
from dibble.fleet.state import journal, new_state

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Event


def work(
    name: str,
    *,
    needs: Sequence[str] = (),
    retries: int = 0,
    base: str = "",
    tree: str = "",
    key: str = "k",
    unsupported: str = "",
    allow_failure: bool = False,
) -> Work:
    cell = Cell(name, "local", name, key, {"host": "local"}, tuple(needs), allow_failure)
    policy = Policy(retries=retries, boot=False, allow_failure=allow_failure)
    return Work(cell, policy=policy, base=base or name, tree=tree or name, unsupported=unsupported)


def success() -> JobResult:
    return JobResult(Attempt("here", 0.0, 1.0, Outcome.SUCCESS))


def failure(kind: FailureClass, reason: str = "it broke") -> JobResult:
    return JobResult(Attempt("here", 0.0, 1.0, Outcome.FAILED, kind, reason, "", 1))


@dataclass(slots=True)
class ScriptedPool:
    """Runs nothing: a job ends as `outcome` of its name and attempt says, in the order of starting."""

    outcome: Callable[[Job], JobResult] = lambda _: success()
    slots: int = 2
    started: list[str] = field(default_factory=list)
    beside: list[frozenset[str]] = field(default_factory=list)
    """What ran when a job was started."""
    _running: list[Job] = field(default_factory=list)

    def free(self) -> int:
        return self.slots - len(self._running)

    def takes(self, work: Work) -> bool:
        return True

    def start(self, job: Job) -> None:
        assert self.free() > 0
        self.started.append(job.name)
        self.beside.append(frozenset(one.name for one in self._running))
        self._running.append(job)

    def wait(self, timeout_s: float) -> Sequence[Message]:
        job = self._running[0]
        result = self.outcome(job)
        self._running.remove(job)
        return [Ended(job.name, result)]

    def stop(self) -> Sequence[Message]:
        stopped, self._running = self._running, []
        ended = failure(FailureClass.DIBBLE)
        return [Ended(job.name, JobResult(ended.attempt, interrupted=True)) for job in stopped]

    def close(self) -> None:
        self.stop()


class Heard:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


def run_of(
    works: Sequence[Work],
    pool: ScriptedPool,
    directory: Path,
    *,
    fail_fast: bool = False,
    only: frozenset[str] | None = None,
    heard: Heard | None = None,
) -> MatrixRun:
    """Run the cells as `dibble matrix` would: going on with what the directory has."""
    settings = Settings("m", directory, directory / "store", {}, fail_fast=fail_fast, only=only)
    with journal(directory) as book:
        last = book.read()
        going_on = last is not None and not last.ended
        state = last if last is not None and going_on else new_state()
        book.begin(state, resumed=going_on)
        events = Events([heard] if heard else [])
        return Runner(works, pool, settings, state=state, journal=book, events=events).go()
