"""Plain lines, as on a pipe and in a log file: `YYYY-MM-DD HH:MM:SS.mmm | text`, in UTC (contract.md 1.5)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from dibble.cli.display_text import SUCCESS, Summary, lines_of
from dibble.events import BuildFinished, Note, StepCached
from dibble.fleet.classify import shown_class

if TYPE_CHECKING:
    from dibble.errors import DibbleError
    from dibble.events import Event


def stamped(text: str, seconds: float) -> str:
    """`text` as a log line of the moment `seconds` after the epoch."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} | {text}"


class PlainReporter:
    """One line an event. `owns_stream`: close it at the end; `shows_failure`: the error that ended the build too;
    `shows_cached`: steps that need not run."""

    def __init__(
        self,
        stream: TextIO,
        *,
        timestamps: bool,
        owns_stream: bool = False,
        shows_failure: bool = False,
        shows_cached: bool = True,
    ) -> None:
        self._stream = stream
        self._timestamps = timestamps
        self._owns_stream = owns_stream
        self._shows_failure = shows_failure
        self._shows_cached = shows_cached
        self._summary = Summary()

    def handle(self, event: Event) -> None:
        self._summary.handle(event)
        if isinstance(event, StepCached) and not self._shows_cached:
            return
        lines = lines_of(event)
        if isinstance(event, BuildFinished):
            lines = self._summary.lines(event)
            if event.status == 0:
                lines.append(SUCCESS)
        self._write(lines, event.time)

    def failed(self, error: DibbleError) -> None:
        if self._shows_failure:
            lines = [*str(error).splitlines(), *(f"  class: {failure}" for failure in shown_class(error))]
            self._write(lines, time.time())

    def close(self) -> None:
        if self._owns_stream:
            self._stream.close()

    def _write(self, lines: list[str], seconds: float) -> None:
        if not lines:
            return
        shown = [stamped(line, seconds) for line in lines] if self._timestamps else lines
        self._stream.write("".join(printable(f"{line}\n", self._stream) for line in shown))
        self._stream.flush()


class WarningsReporter:
    """For quiet runs: warnings alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        if isinstance(event, Note) and event.level == "warning":
            self._stream.write(printable("\n".join(lines_of(event)) + "\n", self._stream))
            self._stream.flush()

    def failed(self, error: DibbleError) -> None:
        """The command line shows the error itself."""

    def close(self) -> None:
        """Standard error stays open."""


def printable(text: str, stream: TextIO) -> str:
    """`text` with `?` for what the stream's encoding lacks, so that a script's output never ends the build."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
