"""What happens in a run of a matrix, as events."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from typing import Any

from dibble.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixStarted(Event):
    """`run` is the run's id; of `cells`, `done` had succeeded in an earlier part of the run. `cell_names` are all."""

    run: str
    matrix: str
    directory: str
    cells: int
    done: int
    slots: int
    cell_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStarted(Event):
    """A try at a cell begins; `attempt` counts from 1."""

    cell: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvent(Event):
    """`data` is an event of the cell's build, as `dibble build --json` prints it."""

    cell: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFinished(Event):
    """A try is over. `final`: the cell is not tried again."""

    cell: str
    outcome: str
    seconds: float
    final: bool = True
    flaky: bool = False
    failure: str = ""
    reason: str = ""
    hint: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixFinished(Event):
    """`counts` are cells by outcome; `overhead` is the mean time that scheduling took a cell."""

    seconds: float
    status: int
    counts: Mapping[str, int]
    overhead: float = 0.0
