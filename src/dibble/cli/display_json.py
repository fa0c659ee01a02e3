"""`--json`: one JSON object an event, one event a line."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TextIO

from dibble.events import to_json
from dibble.fleet.classify import classify

if TYPE_CHECKING:
    from dibble.errors import DibbleError
    from dibble.events import Event


class JsonReporter:
    """Writes ASCII only, so that any reader takes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def handle(self, event: Event) -> None:
        self._write(to_json(event))

    def failed(self, error: DibbleError) -> None:
        """The error that ended the build, as the last line."""
        self._write(
            {
                "event": "Failed",
                "time": time.time(),
                "class": type(error).__name__,
                "failure": classify(error),
                "message": error.message,
                "hint": error.hint,
                "way_in": error.way_in,
                "where": str(error.where),
                "status": error.exit_status,
            }
        )

    def close(self) -> None:
        """Standard output stays open."""

    def _write(self, data: dict[str, object]) -> None:
        self._stream.write(json.dumps(data, default=str) + "\n")
        self._stream.flush()
