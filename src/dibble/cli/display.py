"""Which listeners show a build: a live display on a terminal, plain lines elsewhere, JSON, a log file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from dibble.cli.display_json import JsonReporter
from dibble.cli.display_plain import PlainReporter, WarningsReporter
from dibble.errors import OutputError
from dibble.events import Reporter

if TYPE_CHECKING:
    from dibble.errors import DibbleError
    from dibble.recipe.model import Request


class BuildReporter(Reporter, Protocol):
    """A reporter that is also told of the error that ended the build."""

    def failed(self, error: DibbleError) -> None: ...


def reporters_for(
    request: Request, *, as_json: bool = False, stream: TextIO | None = None, shows_cached: bool = True
) -> list[BuildReporter]:
    """The listeners that this request and this standard output, or `stream`, call for.

    With `shows_cached` false, steps that need not run are not shown.
    Raises OutputError when the log file cannot be written.
    """
    shown = stream or sys.stdout
    reporters: list[BuildReporter] = []
    if request.logfile is not None:
        try:
            log = request.logfile.open("a", encoding="utf-8", errors="replace")
        except OSError as error:
            raise OutputError(
                f"the log file {request.logfile} cannot be written: {error.strerror}",
                hint="give --logfile a path in a directory that exists and is yours",
            ) from error
        reporters.append(PlainReporter(log, timestamps=True, owns_stream=True, shows_failure=True))
    if as_json:
        reporters.append(JsonReporter(sys.stdout))
    elif request.quiet:
        if request.logfile is not None and request.environment.get("DIB_QUIET") != "1":
            shown.write(f"Output logged to {request.logfile}\n")
            shown.flush()
        reporters.append(WarningsReporter(sys.stderr))
    elif is_terminal(shown):
        from dibble.cli.display_live import LiveReporter

        traced = request.trace > 0
        reporters.append(LiveReporter(shown, show_all_output=traced, shows_cached=shows_cached))
    else:
        timestamps = request.environment.get("DIB_NO_TIMESTAMP", "0") != "1"
        reporters.append(PlainReporter(shown, timestamps=timestamps, shows_cached=shows_cached))
    return reporters


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream can show a display that changes in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
