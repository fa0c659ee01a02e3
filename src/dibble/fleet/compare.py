"""What is different from the previous run of a matrix."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.fleet.model import Outcome
from dibble.fleet.summary import size_of
from dibble.wording import bytes_text, seconds_text

if TYPE_CHECKING:
    from dibble.fleet.model import CellResult, MatrixRun

SLOWER = 1.25
"""By so much a time must differ to be told, and by SECONDS: two builds of the same differ by some 10 %."""
SECONDS = 5.0
BIGGER = 1.05
"""By so much a size must differ to be told, and by BYTES: what lists and caches of packages add by the day is less."""
BYTES = 1_000_000
LIKE_WORK = 0.25
"""Times are compared only if the numbers of steps that were run differ by less: a cached build is no faster build."""


class ChangeKind(enum.StrEnum):
    """The kinds of change, the gravest first."""

    FAILING = "newly failing"
    OTHERWISE = "fails otherwise"
    MENDED = "mended"
    SLOWER = "slower"
    FASTER = "faster"
    BIGGER = "bigger"
    SMALLER = "smaller"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of one cell, which is named; a cell that is gone is in the previous run alone."""

    kind: ChangeKind
    cell: str
    text: str
    """Before and after: `2 min 05 s → 4 min 10 s (+100 %)`."""
    amount: float = 0.0
    """By how much, as a ratio to what it was; 0 when it is no amount."""


def changes_of(run: MatrixRun, previous: MatrixRun) -> list[Change]:
    """All differences, by kind, the largest first, then in the order of the results."""
    before = {result.cell.name: result for result in previous.results}
    found: list[Change] = []
    for result in run.results:
        old = before.pop(result.cell.name, None)
        if old is None:
            found.append(Change(ChangeKind.NEW, result.cell.name, result.outcome.value))
        else:
            found += _changes(result, old)
    found += [Change(ChangeKind.GONE, name, f"was {old.outcome}") for name, old in before.items()]
    order = list(ChangeKind)
    return sorted(found, key=lambda change: (order.index(change.kind), -abs(change.amount)))


def _changes(now: CellResult, old: CellResult) -> list[Change]:
    """The differences of one cell. What is still going or waits has none."""
    name = now.cell.name
    pending = {Outcome.WAITING, Outcome.RUNNING}
    if pending & {now.outcome, old.outcome}:
        return []
    text = f"{_state(old)} → {_state(now)}"
    if (old.outcome is Outcome.SUCCESS) != (now.outcome is Outcome.SUCCESS):
        return [Change(ChangeKind.MENDED if now.outcome is Outcome.SUCCESS else ChangeKind.FAILING, name, text)]
    if now.outcome is not Outcome.SUCCESS:
        same = (now.outcome, now.failure) == (old.outcome, old.failure)
        return [] if same else [Change(ChangeKind.OTHERWISE, name, text)]
    found = []
    most = max(now.steps_run, old.steps_run)
    if not now.resumed and abs(now.steps_run - old.steps_run) <= most * LIKE_WORK:
        longer = now.seconds > old.seconds
        if _differ(now.seconds, old.seconds, SLOWER, SECONDS):
            ratio, percent = _ratio(now.seconds, old.seconds)
            kind = ChangeKind.SLOWER if longer else ChangeKind.FASTER
            text = f"{seconds_text(old.seconds)} → {seconds_text(now.seconds)}{percent}"
            found.append(Change(kind, name, text, ratio))
    size, before = size_of(now), size_of(old)
    if now.outputs and old.outputs and _differ(size, before, BIGGER, BYTES):
        ratio, percent = _ratio(size, before)
        kind = ChangeKind.BIGGER if size > before else ChangeKind.SMALLER
        found.append(Change(kind, name, f"{bytes_text(before)} → {bytes_text(size)}{percent}", ratio))
    return found


def _state(result: CellResult) -> str:
    return f"{result.outcome} ({result.failure})" if result.failure else result.outcome.value


def _differ(one: float, other: float, ratio: float, least: float) -> bool:
    return abs(one - other) >= least and max(one, other) >= min(one, other) * ratio


def _ratio(now: float, old: float) -> tuple[float, str]:
    """The change against `old`, and as ` (+12 %)`; nothing to say of a change from 0."""
    if not old:
        return 0.0, ""
    return (now - old) / old, f" ({(now - old) / old:+.0%})".replace("%", " %")
