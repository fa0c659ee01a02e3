"""A run of a matrix on a terminal: cells that end scroll away as lines, those that run stay below as a table."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dibble.cli.display_live import BAR_WIDTH, clean, signs_for
from dibble.cli.matrix_plain import lines_of
from dibble.events import Note
from dibble.fleet.events import CellEvent, CellFinished, CellStarted, MatrixFinished, MatrixStarted
from dibble.wording import seconds_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from dibble.events import Event

REFRESH_PER_SECOND = 4
_COLOURS = {"success": "green", "failed": "red", "skipped": "yellow", "unsupported": "dim"}


@dataclass(slots=True)
class _Row:
    """A cell that runs."""

    name: str
    began: float
    attempt: int
    step: str = ""
    cached: int = 0
    done: int = 0
    steps: int = 0


class LiveMatrix:
    """Draws on the terminal in a thread of rich's own."""

    def __init__(self, stream: TextIO) -> None:
        self._signs = signs_for(stream.encoding or "ascii")
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._counts: Counter[str] = Counter()
        self._cells = 0
        self._live: Live | None = None

    def handle(self, event: Event) -> None:
        with self._lock:
            self._note(event)
        if isinstance(event, MatrixFinished):
            self._stop()
        if isinstance(event, CellFinished | MatrixFinished | MatrixStarted | Note):
            self._print(event)
        if isinstance(event, MatrixStarted):
            self._live = Live(
                console=self._console,
                get_renderable=self._drawing,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _note(self, event: Event) -> None:
        match event:
            case MatrixStarted():
                self._cells = event.cells
                self._counts["success"] = event.done
            case CellStarted():
                self._rows[event.cell] = _Row(event.cell, time.monotonic(), event.attempt)
            case CellEvent() if event.cell in self._rows:
                _go_on(self._rows[event.cell], event.data)
            case CellFinished():
                self._rows.pop(event.cell, None)
                self._counts[event.outcome] += event.final

    def _print(self, event: Event) -> None:
        for number, line in enumerate(lines_of(event)):
            text = Text(clean(line), "dim" if number else "")
            if isinstance(event, CellFinished) and not number:
                good = event.outcome == "success"
                text = Text(f"{self._signs.done if good else self._signs.failed} ", _COLOURS.get(event.outcome, ""))
                text.append(clean(line), "default")
            self._console.print(text, soft_wrap=True)

    def _drawing(self) -> RenderableType:
        with self._lock:
            rows = [_line_of(row) for row in self._rows.values()]
            counts = dict(self._counts)
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        done = sum(counts.values())
        parts = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        foot = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self._cells), completed=done, width=BAR_WIDTH)
        foot.add_row(bar, Text(f"{done} of {self._cells} cells"), Text(parts, "dim"))
        return Group(table, foot)


def _go_on(row: _Row, data: Mapping[str, Any]) -> None:
    match data:
        case {"event": "BuildStarted", "steps": int(steps)}:
            row.steps = steps
        case {"event": "StepStarted", "step": str(step)}:
            row.step = step
        case {"event": "StepFinished"}:
            row.done += 1
        case {"event": "StepCached"}:
            row.done += 1
            row.cached += 1
        case {"event": "Activity", "name": str(name), "finished": False} if not row.step:
            row.step = name


def _line_of(row: _Row) -> tuple[Text, ...]:
    """The cell, how long it runs, how far it is and what it does."""
    name = row.name + (f" (try {row.attempt})" if row.attempt > 1 else "")
    steps = f"{row.done} of {max(row.done, row.steps)} steps" if row.steps else ""
    return (
        Text(name, "bold"),
        Text(seconds_text(time.monotonic() - row.began), "cyan"),
        Text(steps, "dim"),
        Text(clean(row.step), no_wrap=True, overflow="ellipsis"),
    )
