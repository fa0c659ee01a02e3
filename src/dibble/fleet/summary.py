"""The sums of a run: what every report begins with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.fleet.model import Outcome
from dibble.wording import counted, joined, seconds_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.fleet.model import CellResult, FailureClass, MatrixRun


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers of one run. `outcomes` and `failures` hold what occurs, in the order of their classes."""

    cells: int
    outcomes: Mapping[Outcome, int]
    failures: Mapping[FailureClass, int]
    """Of the cells that failed, how many by each class."""
    flaky: int
    allowed: int
    """Cells that failed and were allowed to."""
    resumed: int
    seconds: float
    """What all attempts took, added up: more than the run lasted when cells ran side by side."""
    lasted: float | None
    """From the beginning of the run to its end, in seconds; None while it has none."""
    outputs: int
    size: int
    """Of all outputs, in bytes, as `size_of` counts."""

    @property
    def succeeded(self) -> int:
        return self.outcomes.get(Outcome.SUCCESS, 0)

    @property
    def failed(self) -> int:
        """Cells that failed and were not allowed to."""
        return self.outcomes.get(Outcome.FAILED, 0) - self.allowed


def summary_of(run: MatrixRun) -> Summary:
    outcomes = Counter(result.outcome for result in run.results)
    failures = Counter(result.failure for result in run.results if result.failure)
    return Summary(
        cells=len(run.results),
        outcomes={outcome: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
        failures=dict(failures.most_common()),
        flaky=sum(result.flaky for result in run.results),
        allowed=sum(result.outcome is Outcome.FAILED and result.cell.allow_failure for result in run.results),
        resumed=sum(result.resumed for result in run.results),
        seconds=sum(result.seconds for result in run.results),
        lasted=None if run.ended is None else max(0.0, run.ended - run.began),
        outputs=sum(len(result.outputs) for result in run.results),
        size=sum(size_of(result) for result in run.results),
    )


def size_of(result: CellResult) -> int:
    """What the outputs of a cell take, in bytes: what is allocated, since a raw image's size tells nothing."""
    return sum(output.allocated or output.size for output in result.outputs)


def sentence_of(summary: Summary) -> str:
    """`187 cells: 181 success, 4 failed, 2 skipped; 3 passed on a retry; took 1 h 02 min`."""
    return "; ".join(
        part
        for part in (
            f"{counted(summary.cells, 'cell')}: "
            + (joined(*(f"{number} {outcome}" for outcome, number in summary.outcomes.items())) or "nothing to do"),
            f"{summary.flaky} passed on a retry" if summary.flaky else "",
            f"{summary.allowed} of the failures allowed" if summary.allowed else "",
            "interrupted" if summary.lasted is None else f"took {seconds_text(summary.lasted)}",
        )
        if part
    )
