"""A run of a matrix: cells go to a pool when what they need is done, and each result is written down when it comes."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dibble import __version__
from dibble.fleet.cells import HOSTGEN, Work
from dibble.fleet.choose import Order, SharedLayers
from dibble.fleet.classify import PASSING
from dibble.fleet.events import CellEvent, CellFinished, CellStarted, MatrixFinished, MatrixStarted
from dibble.fleet.model import CellResult, MatrixRun, Outcome
from dibble.fleet.pool import Job, Notice, Progress
from dibble.fleet.state import kept
from dibble.fleet.waiting import Waiting
from dibble.fleet.work import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.fleet.model import Attempt
    from dibble.fleet.pool import JobResult, Message, Pool
    from dibble.fleet.state import Journal, RunState

WAIT_SECONDS = 1.0
LOST_TRIES = 3
"""How often a cell is tried again because what ran it was gone; it may be the cell that takes its worker along."""
CELLS, HOSTS = "cells", "hosts"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is done with. `directory` is the run's own, `environment` that of every build."""

    matrix: str
    directory: Path
    store: Path
    environment: Mapping[str, str]
    fail_fast: bool = False
    only: frozenset[str] | None = None
    """Names of the cells to build now, with what they need; None: all."""
    slots: int = 0
    """For the display."""


class Runner:
    """One run. `works` are all cells in the order in which they are shown; `state` has what an earlier part did.

    `order` decides which cell is started next; `now` tells the time, in seconds since the epoch.
    """

    def __init__(
        self,
        works: Sequence[Work],
        pool: Pool,
        settings: Settings,
        *,
        state: RunState,
        journal: Journal,
        events: Events,
        order: Order | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._works = {work.cell.name: work for work in works}
        self._pool = pool
        self._settings = settings
        self._state = state
        self._journal = journal
        self._events = events
        self._results: dict[str, CellResult] = dict(
            kept(state, {name: work.cell for name, work in self._works.items()})
        )
        self._now = now
        self._order = SharedLayers() if order is None else order
        todo = [
            work
            for name, work in self._works.items()
            if name not in self._results and (settings.only is None or name in settings.only)
        ]
        self._waiting = Waiting(todo, self._results, self._order)
        self._running: dict[str, Work] = {}
        self._tried: dict[str, list[Attempt]] = {}
        self._lost: Counter[str] = Counter()
        self._has_failed = any(is_failure(result) for result in self._results.values())
        self._scheduling = 0.0  # seconds spent in this file, the pool's waiting not counted
        self._interrupted = False

    def go(self) -> MatrixRun:
        """Run what is missing. An interruption ends it in good order; then it has no end, and can go on later."""
        began = time.monotonic()
        done = len(self._results)
        self._events.send(
            MatrixStarted(
                run=self._state.id, matrix=self._settings.matrix, directory=str(self._settings.directory),
                cells=len(self._works), done=done, slots=self._settings.slots, cell_names=tuple(self._works),
            )
        )  # fmt: skip
        try:
            self._settle_unsupported()
            while self._waiting or self._running:
                with self._timed():
                    self._skip_hopeless()
                    self._start_ready()
                if not self._waiting and not self._running:
                    break
                messages = self._pool.wait(WAIT_SECONDS)
                with self._timed():
                    for message in messages:
                        self._handle(message)
                    if self._settings.fail_fast and self._has_failed:
                        self._stop_early()
        except KeyboardInterrupt:
            self._interrupted = True
            self._drain()
        if len(self._results) == len(self._works):
            self._journal.end()
        run = self.snapshot(ended=None if self._interrupted else self._now())
        built = len(self._results) - done
        self._events.send(
            MatrixFinished(
                seconds=time.monotonic() - began,
                status=status_of(run),
                counts=dict(Counter(result.outcome.value for result in run.results)),
                overhead=self._scheduling / built if built else 0.0,
            )
        )
        return run

    def snapshot(self, *, ended: float | None = None) -> MatrixRun:
        """The run as it stands."""
        return MatrixRun(
            id=self._state.id,
            matrix=self._settings.matrix,
            version=__version__,
            began=self._state.began,
            ended=ended,
            hosts=tuple(dict.fromkeys(work.cell.host for work in self._works.values())),
            targets=tuple(dict.fromkeys(work.cell.target for work in self._works.values())),
            results=tuple(self._result_of(work) for work in self._works.values()),
        )

    def _result_of(self, work: Work) -> CellResult:
        name = work.cell.name
        if name in self._results:
            return self._results[name]
        outcome = Outcome.RUNNING if name in self._running else Outcome.WAITING
        return CellResult(work.cell, outcome, tuple(self._tried.get(name, ())))

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._scheduling += time.monotonic() - began

    # --- cells that are not built

    def _settle_unsupported(self) -> None:
        for work in self._waiting:
            if work.unsupported:
                self._finish(work, CellResult(work.cell, Outcome.UNSUPPORTED, why=work.unsupported))

    def _skip_hopeless(self) -> None:
        """Cells that need one which was not built."""
        for work, need in self._waiting.hopeless():
            self._finish(work, CellResult(work.cell, Outcome.SKIPPED, why=f"{need} was not built"))

    def _stop_early(self) -> None:
        """End what runs, and let the rest be."""
        for message in self._pool.stop():
            self._handle(message)
        for work in [*self._running.values(), *self._waiting]:
            self._running.pop(work.cell.name, None)
            attempts = tuple(self._tried.get(work.cell.name, ()))
            self._finish(work, CellResult(work.cell, Outcome.SKIPPED, attempts, why="the run was stopped early"))

    # --- cells that are

    def _start_ready(self) -> None:
        free = self._pool.free()
        while free > 0:
            work = self._waiting.take(self._pool.takes)
            if work is None:
                return
            name = work.cell.name
            self._running[name] = work
            self._events.send(CellStarted(cell=name, attempt=len(self._tried.get(name, ())) + 1))
            self._pool.start(self._job(work))
            free -= 1

    def _job(self, work: Work) -> Job:
        settings = self._settings
        is_local = work.kind == HOSTGEN or (work.host.tree is None and work.host.build is None)
        return Job(
            work=work,
            directory=settings.directory / CELLS / work.cell.name,
            store=settings.store,
            environment=settings.environment,
            attempt=len(self._tried.get(work.cell.name, ())) + 1,
            tree=None if is_local else self._tree_of(work),
            host_directory=None if is_local else settings.directory / HOSTS / work.cell.host,
        )

    def _tree_of(self, work: Work) -> Path | None:
        """The root tree of a cell's host: as given, or what its row hostgen has made."""
        if work.host.tree is not None:
            return work.host.tree
        name = f"{work.cell.host}/{HOSTGEN}"
        made = next(output for output in self._results[name].outputs if output.format == "tar")
        return self._settings.directory / CELLS / name / made.name

    def _handle(self, message: Message) -> None:
        if isinstance(message, Progress):
            self._events.send(CellEvent(cell=message.cell, data=message.event))
        elif isinstance(message, Notice):
            self._events.note(message.text, "warning" if message.warning else "info")
        elif message.cell in self._running:
            self._ended(self._running.pop(message.cell), message.result)

    def _ended(self, work: Work, result: JobResult) -> None:
        name = work.cell.name
        self._order.ended(work, made=not (result.interrupted or result.lost))
        if result.interrupted:
            self._waiting.again(work)
            return
        attempts = self._tried.setdefault(name, [])
        attempts.append(result.attempt)
        found = CellResult(
            cell=work.cell,
            outcome=result.attempt.outcome,
            attempts=tuple(attempts),
            steps_run=result.steps_run,
            steps_cached=result.steps_cached,
            timings=result.timings,
            outputs=result.outputs,
            boot=result.boot,
            log=f"{CELLS}/{name}/{LOG}",
        )
        self._lost[name] += result.lost
        failures = len(attempts) - self._lost[name]
        again = (
            self._lost[name] <= LOST_TRIES
            if result.lost
            else result.attempt.outcome is Outcome.FAILED
            and result.attempt.failure in PASSING
            and failures <= (work.policy.retries or 0)
        )
        if again:
            self._waiting.again(work)
            self._tell(found, final=False)
        else:
            self._finish(work, found)

    def _finish(self, work: Work, result: CellResult) -> None:
        self._waiting.remove(work.cell.name)
        self._waiting.done(work.cell.name, success=result.outcome is Outcome.SUCCESS)
        self._results[work.cell.name] = result
        self._has_failed = self._has_failed or is_failure(result)
        self._journal.add(result)
        self._tell(result, final=True)

    def _tell(self, result: CellResult, *, final: bool) -> None:
        last = result.last
        told: dict[str, Any] = {"failure": last.failure or "", "hint": last.hint} if last else {}
        self._events.send(
            CellFinished(
                cell=result.cell.name,
                outcome=result.outcome.value,
                seconds=last.seconds if last else 0.0,
                final=final,
                flaky=result.flaky,
                reason=result.reason,
                log=result.log,
                **told,
            )
        )

    def _drain(self) -> None:
        """After an interruption: what succeeded all the same counts, the rest is built another time."""
        for message in self._pool.stop():
            self._handle(message)


def is_failure(result: CellResult) -> bool:
    """Whether it makes the whole run a failed one."""
    return result.outcome is Outcome.FAILED and not result.cell.allow_failure


def status_of(run: MatrixRun) -> int:
    """The exit status of a run: 0 when all that was to be built was."""
    if run.ended is None:
        return 130  # 128 + SIGINT
    return 1 if any(is_failure(result) for result in run.results) else 0
