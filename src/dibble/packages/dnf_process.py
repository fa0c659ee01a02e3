"""The process in which dnf's library works: kept from a decision to its transaction, and started ahead of need.

Loading the library and the metadata takes the better part of a second, so what has decided also carries out. No such
process outlives the request that it serves, as it has files of the target open; one that waits for its first has none.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.errors import ToolFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dibble.sandbox.process import Running
    from dibble.sandbox.toolbox import Toolbox

_MARK = "\x1edibble "
_LAST_LINES = 200


class DnfProcess:
    """At most one process. `environment` and `home` (rpm's settings, a path in the target's view) are its own."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._running: Running | None = None
        self._started_with: tuple[Mapping[str, str], str, str] | None = None
        self._decided: Mapping[str, Any] | None = None

    def start(self, environment: Mapping[str, str], home: Path) -> None:
        """Have one that waits for its first request. The calling thread must live as long as it is to live."""
        settings = "".join(file.read_text() for file in sorted(home.rglob("*")) if file.is_file())
        wanted = (dict(environment), self._toolbox.path(home), settings)
        if self._running is not None and self._decided is None and self._started_with == wanted:
            return
        self.close()
        program = Path(__file__).with_name("dnf_worker.py").read_text("utf-8")
        argv = ["python3", "-c", program, self._toolbox.path(home)]
        self._running = self._toolbox.spawn(argv, env=environment, stdin=True, durable=False)
        self._started_with = wanted

    def decide(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a request comes to. The process must wait for its first. Raises ToolFailed when it breaks down."""
        answer = self._answer(asked, None)
        self._decided = asked
        return answer

    def has_decided(self, asked: Mapping[str, Any]) -> bool:
        """Whether this request is the one that it has decided, and can carry out."""
        return self._running is not None and self._decided is asked

    def apply(self, asked: Mapping[str, Any], on_line: Callable[[str], None]) -> dict[str, Any]:
        """Carry out what was decided; `asked` says with what. Raises ToolFailed when the process breaks down."""
        try:
            return self._answer(asked, on_line)
        finally:
            self.close()

    def close(self) -> None:
        """End it."""
        running, self._running = self._running, None
        self._decided = None
        if running is not None:
            running.kill()

    def _answer(self, asked: Mapping[str, Any], on_line: Callable[[str], None] | None) -> dict[str, Any]:
        running = self._running
        assert running is not None
        assert running.stdin is not None
        assert running.stdout is not None
        lines: list[str] = []
        try:
            with contextlib.suppress(BrokenPipeError):  # what it printed tells more
                running.stdin.write(json.dumps(asked).encode() + b"\n")
                running.stdin.flush()
            for raw in running.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                if line.startswith(_MARK):
                    answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                    return answer
                lines = [*lines[1 - _LAST_LINES :], line]
                if on_line:
                    on_line(line)
            raise ToolFailed(("dnf",), running.wait() or 1, "\n".join(lines))
        except BaseException:
            self.close()
            raise
