"""What every report calls a result, and the numbered notes that cells share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.fleet.model import Outcome
from dibble.fleet.reports.plain import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.fleet.model import CellResult, MatrixRun


@dataclass(frozen=True, slots=True)
class Note:
    """A cause that cells share. Numbers count from 1, in the order in which the table first shows them."""

    number: int
    kind: str
    """The class of a failure; `skipped` or `unsupported pair` of cells that never ran."""
    reason: str
    """One line; may be empty."""
    cells: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


@dataclass(frozen=True, slots=True)
class Notes:
    """All notes of a run, and the note of each cell that has one, by the cell's name."""

    all: tuple[Note, ...]
    of: Mapping[str, Note]


def kind_of(result: CellResult) -> str:
    """The heading of a cell's note; empty for a success, a cell that is not done, and a failure of no known class."""
    if result.outcome is Outcome.FAILED:
        return result.failure.value if result.failure else ""
    if result.outcome is Outcome.SKIPPED:
        return "skipped"
    return "unsupported pair" if result.outcome is Outcome.UNSUPPORTED else ""


def notes_of(run: MatrixRun) -> Notes:
    """Cells with equal kind and reason share a note. A failure without class and reason has none."""
    cells: dict[tuple[str, str], list[str]] = {}
    for result in in_order(run):
        key = (kind_of(result) or ("failed" if result.reason else ""), one_line(result.reason))
        if any(key) and result.outcome is not Outcome.SUCCESS:
            cells.setdefault(key, []).append(result.cell.name)
    notes = [Note(number, *key, cells=len(names)) for number, (key, names) in enumerate(cells.items(), start=1)]
    by_cell = {name: note for note, names in zip(notes, cells.values(), strict=True) for name in names}
    return Notes(tuple(notes), by_cell)


def by_place(run: MatrixRun) -> dict[tuple[str, str], list[CellResult]]:
    """The results at each (target, host) of the table; several where an axis is in neither name."""
    found: dict[tuple[str, str], list[CellResult]] = {}
    for result in run.results:
        found.setdefault((result.cell.target, result.cell.host), []).append(result)
    return found


def lines_and_columns(run: MatrixRun) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Targets and hosts as the run has them, and behind them what only its cells name."""
    targets = dict.fromkeys((*run.targets, *(result.cell.target for result in run.results)))
    hosts = dict.fromkeys((*run.hosts, *(result.cell.host for result in run.results)))
    return tuple(targets), tuple(hosts)


def in_order(run: MatrixRun) -> list[CellResult]:
    """The results as the table shows them: line by line."""
    places = by_place(run)
    targets, hosts = lines_and_columns(run)
    return [result for target in targets for host in hosts for result in places.get((target, host), ())]
