"""What the page of a run shows, as plain values for its template and, as JSON, for its script."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dibble.fleet.compare import Change, changes_of
from dibble.fleet.history import Point, RecordedRun
from dibble.fleet.logs import log_end
from dibble.fleet.model import Outcome
from dibble.fleet.reports.plain import one_line, readable
from dibble.fleet.reports.words import in_order
from dibble.fleet.summary import size_of, summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.fleet.history import History
    from dibble.fleet.model import Attempt, CellResult, MatrixRun
    from dibble.fleet.reports.words import Notes

LOGS = 6_000_000
"""Bytes of logs in one page, all cells together: it can still be sent by mail."""
LOG_OF_A_FAILURE = 100_000
LOG_OF_A_SUCCESS = 8_000
"""Bytes of one log at most; the page tells where the whole lies."""
TREND = 30
"""So many runs are followed back."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the history knows besides the run itself. Empty without a history."""

    previous: MatrixRun | None = None
    runs: tuple[RecordedRun, ...] = ()
    """Of the same matrix, the oldest first; this run is among them or not."""
    trends: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)


def past_of(run: MatrixRun, history: History | None) -> Past:
    """Raises StoreError when the history cannot be read."""
    if history is None:
        return Past()
    earlier = [known for known in history.runs(run.matrix) if known.began <= run.began and known.id != run.id]
    return Past(
        previous=history.previous(run),
        runs=tuple(reversed(earlier[: TREND - 1])),
        trends=history.trends(run.matrix, until=run.began, last=TREND),
    )


def mark_of(result: CellResult) -> str:
    """The class of a cell for the style sheet and the script: its outcome, or `flaky`, or `allowed`."""
    if result.flaky:
        return "flaky"
    allowed = result.outcome is Outcome.FAILED and result.cell.allow_failure
    return "allowed" if allowed else result.outcome.value


WORDS = {
    "success": "success",
    "flaky": "success on retry",
    "failed": "failed",
    "allowed": "failed, allowed",
    "skipped": "skipped",
    "unsupported": "unsupported",
    "running": "running",
    "waiting": "waiting",
}
"""What a person reads for each mark; the page never tells by colour alone."""


def cells_of(run: MatrixRun, past: Past, changes: list[Change], notes: Notes) -> list[dict[str, Any]]:  # Any: JSON
    """One entry a cell, in the order of the table."""
    numbers = {known.id: number for number, known in enumerate(all_runs(run, past))}
    changed: dict[str, list[Change]] = {}
    for change in changes:
        changed.setdefault(change.cell, []).append(change)
    return [
        {
            "name": one_line(result.cell.name),
            "host": one_line(result.cell.host),
            "target": one_line(result.cell.target),
            "mark": mark_of(result),
            "class": result.failure.value if result.failure else "",
            "reason": readable(result.reason),
            "note": notes.of[result.cell.name].number if result.cell.name in notes.of else 0,
            "seconds": result.seconds if result.attempts else None,
            "bytes": size_of(result) if result.outputs else None,
            "boot": readable(result.boot),
            "ran": result.steps_run,
            "cached": result.steps_cached,
            "resumed": result.resumed,
            "log": one_line(result.log),
            "axes": {one_line(name): one_line(value) for name, value in result.cell.axes.items()},
            "needs": [one_line(name) for name in result.cell.needs],
            "attempts": [_attempt(attempt) for attempt in result.attempts],
            "timings": [[one_line(what), seconds] for what, seconds in result.timings],
            "outputs": [
                [one_line(out.name), one_line(out.format), out.size, out.allocated, one_line(out.sha256)]
                for out in result.outputs
            ],
            "changes": [[change.kind.value, one_line(change.text)] for change in changed.get(result.cell.name, ())],
            "trend": [
                [numbers[point.run], point.outcome.value, point.seconds, point.size]
                for point in _points(run, result, past)
                if point.run in numbers
            ],
        }
        for result in in_order(run)
    ]


def logs_of(run: MatrixRun, directory: Path) -> list[dict[str, Any] | None]:  # Any: JSON
    """The ends of the logs, in the order of `cells_of`; those of failures first get what space there is."""
    results = in_order(run)
    failed = sum(result.outcome is Outcome.FAILED for result in results)
    of_failure = min(LOG_OF_A_FAILURE, LOGS // max(failed, 1))
    rest = (LOGS - failed * of_failure) // max(len(results) - failed, 1)
    found: list[dict[str, Any] | None] = []
    for result in results:
        limit = of_failure if result.outcome is Outcome.FAILED else min(LOG_OF_A_SUCCESS, rest)
        log = log_end(directory, result, limit)
        found.append({"text": log.text, "left_out": log.left_out} if log else None)
    return found


def all_runs(run: MatrixRun, past: Past) -> list[RecordedRun]:
    """The runs before this one that are followed, and this one at the end."""
    summary = summary_of(run)
    this = RecordedRun(
        run.id, run.matrix, run.version, run.began, run.ended, summary.outcomes, summary.flaky, summary.seconds,
        summary.size,
    )  # fmt: skip
    return [*past.runs, this]


def _points(run: MatrixRun, result: CellResult, past: Past) -> list[Point]:
    earlier = [point for point in past.trends.get(result.cell.name, ()) if point.run != run.id]
    now = Point(run.id, run.began, result.outcome, result.failure, result.flaky, result.seconds, size_of(result))
    return [*earlier, now]


def _attempt(attempt: Attempt) -> dict[str, Any]:  # Any: JSON
    return {
        "worker": one_line(attempt.worker),
        "began": time_text(attempt.began),
        "seconds": attempt.seconds,
        "outcome": attempt.outcome.value,
        "class": attempt.failure.value if attempt.failure else "",
        "reason": readable(attempt.reason),
        "hint": readable(attempt.hint),
        "status": attempt.status,
    }


def time_text(seconds: float) -> str:
    """`2026-11-29 10:55 UTC`; empty for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return ""


def cell_link(name: str) -> str:
    """The fragment that opens a cell."""
    return f"cell={quote(one_line(name), safe='')}"


def page_changes(run: MatrixRun, past: Past) -> list[Change]:
    return changes_of(run, past.previous) if past.previous else []
