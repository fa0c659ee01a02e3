"""One run of the real scheduler over a simulated cluster, and what it came to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.scale_model.costs import Bound, Costs, bound_of
from benchmarks.scale_model.simulated import SimulatedPool

from dibble.events import Event, Events
from dibble.fleet.choose import SharedLayers
from dibble.fleet.events import MatrixFinished
from dibble.fleet.model import MatrixRun, Outcome
from dibble.fleet.run import Runner, Settings
from dibble.fleet.state import RunState, journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.scale_model.costs import Cluster

    from dibble.fleet.cells import Work
    from dibble.fleet.choose import Order


@dataclass(frozen=True, slots=True)
class Outcomes:
    """`makespan` is virtual; `overhead` is real, in seconds a cell, and `processor` what the whole run took of it.

    `spent` are slots' seconds by what they went to.
    """

    cells: int
    bound: Bound
    makespan: float
    overhead: float
    processor: float
    moved: float
    from_mirrors: float
    made_again: int
    deaths: int
    retried: int
    failed: int
    spent: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The makespan beside the lower bound; 1 is as good as can be."""
        return self.makespan / self.bound.makespan

    @property
    def utilisation(self) -> float:
        """The share of the slots' time in which they had a cell."""
        return sum(self.spent.values()) / (self.bound.slots * self.makespan)


class _Overhead:
    """Keeps what the end of a run tells."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def handle(self, event: Event) -> None:
        if isinstance(event, MatrixFinished):
            self.seconds = event.overhead

    def close(self) -> None:
        pass


def simulated(
    works: Sequence[Work],
    cluster: Cluster,
    directory: Path,
    *,
    order: Order | None = None,
    events: int = 0,
    seed: int = 1,
) -> tuple[Outcomes, MatrixRun]:
    """Run the cells in virtual time. `directory` gets the journal; `events` progress messages come from each cell."""
    costs = Costs(seed)
    pool = SimulatedPool(cluster, costs, events=events, seed=seed)
    settings = Settings("cluster", directory, directory / "store", {}, slots=pool.slots)
    heard = _Overhead()
    began = time.process_time()
    with journal(directory) as book:
        state = RunState("simulated", pool.now)
        book.begin(state, resumed=False)
        run = Runner(
            works, pool, settings, state=state, journal=book, events=Events([heard]),
            order=order or SharedLayers(), now=lambda: pool.now,
        ).go()  # fmt: skip
    processor = time.process_time() - began
    outcomes = Outcomes(
        cells=len(works), bound=bound_of(works, costs, cluster), makespan=pool.now, overhead=heard.seconds,
        processor=processor, moved=pool.moved, from_mirrors=pool.from_mirrors, made_again=pool.made_again,
        deaths=pool.deaths, retried=sum(len(result.attempts) - 1 for result in run.results if result.attempts),
        failed=sum(result.outcome is not Outcome.SUCCESS for result in run.results),
        spent=dict(pool.spent),
    )  # fmt: skip
    return outcomes, run
