"""A run of a matrix as plain lines: one when a cell begins and one when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from dibble.cli.display_plain import printable
from dibble.events import Note
from dibble.fleet.events import CellFinished, CellStarted, MatrixFinished, MatrixStarted
from dibble.wording import counted, seconds_text

if TYPE_CHECKING:
    from dibble.events import Event


def lines_of(event: Event) -> list[str]:
    """What a log says of an event of a matrix."""
    match event:
        case MatrixStarted():
            lines = [
                f"matrix {event.matrix}: {counted(event.cells, 'cell')}, {event.slots} at a time, in {event.directory}"
            ]
            if event.done:
                lines.append(f"going on with run {event.run}: {counted(event.done, 'cell')} done")
            return lines
        case Note():
            return [f"warning: {event.text}" if event.level == "warning" else event.text]
        case CellStarted():
            return [f"{event.cell}: started" + (f", try {event.attempt}" if event.attempt > 1 else "")]
        case CellFinished():
            return _of_finished(event)
        case MatrixFinished():
            counts = ", ".join(f"{count} {outcome}" for outcome, count in event.counts.items())
            return [f"{counts}; {seconds_text(event.seconds)}"]
    return []


def _of_finished(event: CellFinished) -> list[str]:
    words = event.outcome + (", on a retry" if event.flaky else "")
    time = f" after {seconds_text(event.seconds)}" if event.seconds else ""
    head = f"{event.cell}: {words}{time}"
    if event.failure:
        head += f", {event.failure}"
    if not event.final:
        head += ", to be tried again"
    lines = [f"{head}: {event.reason}" if event.reason else head]
    if event.failure and event.hint:
        lines.append(f"  hint: {event.hint}")
    if event.failure and event.log:
        lines.append(f"  log: {event.log}")
    return lines


class PlainMatrix:
    """Writes the lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        for line in lines_of(event):
            self._stream.write(printable(f"{line}\n", self._stream))
        self._stream.flush()

    def close(self) -> None:
        """Standard output stays open."""
