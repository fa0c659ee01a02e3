"""Somebody at a terminal: a program with a pseudo terminal of its own, typed to and read as a person would."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.people import Person

PATIENCE_S = 60.0
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|\r")


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):  # ignored where the tests run in the background
        signal.signal(number, signal.SIG_DFL)


class TerminalUser:
    """Runs a program as a person's, in a session whose controlling terminal we hold. A context manager."""

    def __init__(
        self, person: Person, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], rows: int = 30
    ) -> None:
        self._master, slave = os.openpty()
        self.resize(rows, 100)
        ours = os.getuid() == person.uid
        self._slave = slave
        self.process = subprocess.Popen(
            list(map(str, argv)),
            cwd=cwd,
            env={**env, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - it makes a plain system call only
            user=None if ours else person.uid,
            group=None if ours else person.gid,
            extra_groups=None if ours else [],
        )
        self.shown = ""
        """What has been read and not yet been waited for, without control sequences."""

    def __enter__(self) -> TerminalUser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()
        os.close(self._slave)

    def hang_up(self) -> None:
        """Close the terminal's window."""
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list[object]:
        """The terminal's settings (tcgetattr(3))."""
        return termios.tcgetattr(self._slave)

    def type(self, text: str) -> None:
        """Type keys; a line ends with Return."""
        os.write(self._master, text.replace("\n", "\r").encode())

    def wait_for(self, text: str) -> str:
        """Read on until `text` is shown; returns what came before it."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"{text!r} has not come: {self.shown!r}")
        before, _, self.shown = self.shown.partition(text)
        return before

    def end(self) -> int:
        """Read until the program ends; returns its status."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < end:
            self._read(0.1)
        while self._read(0):
            pass
        assert self.process.returncode is not None, f"it does not end: {self.shown!r}"
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(seconds, 0))
        if ready:
            self.shown += _CONTROL.sub("", os.read(self._master, 65536).decode("utf-8", "replace"))
        return bool(ready)
