"""The serial line of a guest: what it says is read as it comes, kept, shown, and waited for with a limit.

Nothing sleeps: `select` wakes on bytes or at the deadline. Deadlines are moments of `time.monotonic()`.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from dibble.evidence.terminal import TerminalText

if TYPE_CHECKING:
    import re
    import socket
    from collections.abc import Callable, Sequence

_READ_SIZE = 65536
_LONGEST_LINE = 8192
"""Characters; of a line that is longer, as a guest gone wild sends it, only the end is searched again."""


class SerialTimeout(Exception):
    """The deadline passed before anything that was waited for came."""


class SerialClosed(Exception):
    """The guest's end of the line is closed: QEMU has ended."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was waited for: the number of the pattern, its match, and the text between the last match and this one."""

    index: int
    match: re.Match[str]
    before: str


class Console:
    """One end of a serial line. Matching goes on after the end of the last match.

    `on_line` gets every complete line of plain text, `log` the bytes as they came. The caller owns `line` and `log`.
    """

    def __init__(
        self, line: socket.socket, *, on_line: Callable[[str], None] | None = None, log: IO[bytes] | None = None
    ) -> None:
        self._line = line
        self._on_line = on_line
        self._log = log
        self._terminal = TerminalText()
        self._text = ""
        self._taken = 0  # end of the last match
        self._shown = 0  # end of the last line given to on_line
        self.first_byte_at: float | None = None
        self.closed = False

    @property
    def text(self) -> str:
        """All that the guest said so far, as plain text."""
        return self._text

    def last_lines(self, count: int) -> list[str]:
        """The last lines that are not blank, oldest first."""
        return [line.rstrip() for line in self._text[-20000:].splitlines() if line.strip()][-count:]

    def send(self, text: str) -> None:
        """Type `text`. Raises SerialClosed when nobody is there to read it."""
        try:
            self._line.sendall(text.encode())
        except (BrokenPipeError, ConnectionResetError) as error:
            raise SerialClosed from error

    def expect(self, patterns: Sequence[re.Pattern[str]], deadline: float) -> Heard:
        """Wait for any of the patterns; of several, the one that matches first in the text.

        A pattern is sought from the last match on, but again only in the line that a read ended in, so it must match
        within one line (a preceding line end is allowed as `^`). Raises SerialTimeout and SerialClosed.
        """
        start = self._taken
        while True:
            found = [(match.start(), index, match) for index, match in self._search(patterns, start)]
            if found:
                _, index, match = min(found)[:3]
                before = self._text[self._taken : match.start()]
                self._taken = match.end()
                return Heard(index, match, before)
            start = max(self._taken, self._text.rfind("\n") + 1, len(self._text) - _LONGEST_LINE)
            if not self.read(deadline):
                raise SerialTimeout

    def _search(self, patterns: Sequence[re.Pattern[str]], start: int) -> list[tuple[int, re.Match[str]]]:
        matches = [(index, pattern.search(self._text, start)) for index, pattern in enumerate(patterns)]
        return [(index, match) for index, match in matches if match is not None]

    def read(self, deadline: float) -> bool:
        """Take in what comes next; False when nothing came before the deadline. Raises SerialClosed."""
        if self.closed:
            raise SerialClosed
        ready, _, _ = select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = self._line.recv(_READ_SIZE)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            self._take(self._terminal.rest())
            self._show(len(self._text))
            raise SerialClosed
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        if self._log is not None:
            self._log.write(data)
            self._log.flush()
        self._take(self._terminal.feed(data))
        return True

    def read_to_end(self, deadline: float) -> bool:
        """Take in all until the line is closed; False when the deadline came first."""
        try:
            while self.read(deadline):
                pass
        except SerialClosed:
            return True
        return False

    def read_until_quiet(self, seconds: float, limit_s: float) -> None:
        """Take in what still comes, until nothing came for `seconds`, for at most `limit_s` seconds."""
        end = time.monotonic() + limit_s
        try:
            while (now := time.monotonic()) < end and self.read(min(end, now + seconds)):
                pass
        except SerialClosed:
            return

    def show_rest(self) -> None:
        """Give an unfinished last line to `on_line`: a prompt, for instance."""
        self._show(len(self._text))

    def _take(self, text: str) -> None:
        self._text += text
        end = self._text.rfind("\n") + 1
        if end > self._shown:
            self._show(end)

    def _show(self, end: int) -> None:
        if self._on_line is not None:
            for line in self._text[self._shown : end].splitlines():
                if line.strip():
                    self._on_line(line.rstrip())
        self._shown = max(self._shown, end)
