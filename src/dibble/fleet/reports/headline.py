"""What the page of a run begins with: the verdict in one sentence, and the critical numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.fleet.compare import ChangeKind
from dibble.fleet.model import Outcome
from dibble.fleet.reports.page_data import cell_link
from dibble.fleet.reports.plain import one_line
from dibble.fleet.summary import size_of, summary_of
from dibble.wording import bytes_text, counted, seconds_text

if TYPE_CHECKING:
    from dibble.fleet.compare import Change
    from dibble.fleet.model import CellResult, MatrixRun


@dataclass(frozen=True, slots=True)
class Tile:
    """A number. `mark` colours it; `link` is a fragment of the page that shows what it counts."""

    label: str
    value: str
    detail: str = ""
    mark: str = ""
    link: str = ""


def verdict_of(run: MatrixRun, changes: list[Change]) -> tuple[str, str]:
    """The run in one sentence, and the mark that goes with it."""
    summary = summary_of(run)
    if run.ended is None or {Outcome.WAITING, Outcome.RUNNING} & set(summary.outcomes):
        return f"Not finished: {summary.succeeded} of {counted(summary.cells, 'cell')} succeeded so far", "running"
    if not summary.cells:
        return "The matrix has no cells", "unsupported"
    if summary.failed:
        new = sum(change.kind is ChangeKind.FAILING for change in changes)
        told = f", {new} of them since the previous run" if new and new < summary.failed else ""
        told = ", all of them since the previous run" if new and new >= summary.failed > 1 else told
        return f"{summary.failed} of {counted(summary.cells, 'cell')} failed{told}", "failed"
    if summary.succeeded == summary.cells:
        return ("The one cell" if summary.cells == 1 else f"All {summary.cells} cells") + " succeeded", "success"
    return f"{summary.succeeded} of {counted(summary.cells, 'cell')} succeeded, none failed", "success"


def tiles_of(run: MatrixRun, previous: MatrixRun | None) -> list[Tile]:
    """The critical numbers, those of cells with the difference to the previous run."""
    summary = summary_of(run)
    before = summary_of(previous) if previous else None
    cells = f"of {counted(summary.cells, 'cell')}"
    good = _since(summary.succeeded, before.succeeded if before else None)
    bad = _since(summary.failed, before.failed if before else None)
    not_run = summary.cells - summary.succeeded - summary.outcomes.get(Outcome.FAILED, 0)
    ran = (Outcome.SUCCESS, Outcome.FAILED)
    parts = ", ".join(f"{number} {outcome}" for outcome, number in summary.outcomes.items() if outcome not in ran)
    allowed = f"and {summary.allowed} allowed to" if summary.allowed else cells
    failed, flaky = "failed" if summary.failed else "", "flaky" if summary.flaky else ""
    tiles = [
        Tile(
            "Succeeded",
            _percent(summary.succeeded, summary.cells),
            f"{summary.succeeded} {cells}{good}",
            "success",
            "outcome=success",
        ),
        Tile("Failed", str(summary.failed), allowed + bad, failed, "outcome=failed"),
        Tile("Not run", str(not_run), parts or "every cell ran", "skipped" if not_run else "", "outcome=not-run"),
        Tile("Passed on retry", str(summary.flaky), "flaky: a try before failed", flaky, "outcome=flaky"),
        _took(summary.seconds, summary.lasted),
        Tile("Images", str(summary.outputs), f"{bytes_text(summary.size)} on disk"),
    ]
    longest = max(run.results, key=lambda result: result.seconds, default=None)
    if longest and longest.seconds:
        tiles.append(_of_cell("Slowest cell", seconds_text(longest.seconds), longest))
    largest = max(run.results, key=size_of, default=None)
    if largest and size_of(largest):
        tiles.append(_of_cell("Largest images", bytes_text(size_of(largest)), largest))
    return tiles


def _took(seconds: float, lasted: float | None) -> Tile:
    detail = f"{seconds_text(seconds)} of cells"
    if lasted is None:
        return Tile("Run took", "no end", detail)
    return Tile("Run took", seconds_text(lasted), detail + (f", {seconds / lasted:.1f} at a time" if lasted else ""))


def _of_cell(label: str, value: str, result: CellResult) -> Tile:
    return Tile(label, value, one_line(result.cell.name), link=cell_link(result.cell.name))


def _percent(part: int, whole: int) -> str:
    """Never 100 % of what is not whole."""
    if not whole:
        return "none"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if part in (0, whole) else f"{min(percent, 99.9):.1f} %"


def _since(now: int, before: int | None) -> str:
    if before is None or now == before:
        return ""
    return f"; {abs(now - before)} {'more' if now > before else 'fewer'} than before"
