"""The channel on which scripts ask the engine for something: `dib-engine VERB ARGS…` on both sides.

A shell must suffice to speak it. The client makes a directory in /dev/dibble with the files `args` (NUL-terminated),
`cwd`, `env` (`env -0`) and a FIFO `reply`, and writes the directory's name as one line to the FIFO `request`, which is
atomic up to PIPE_BUF (pipe(7)). We answer on `reply`: `o TEXT` and `e TEXT` lines for its two outputs and a last line
`x STATUS`.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_NAME = re.compile(r"r\.[A-Za-z0-9._-]+")
_STOP = "stop"


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `output` and `errors` print a line at the client."""

    verb: str
    arguments: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    output: Callable[[str], None]
    errors: Callable[[str], None]


class ControlChannel:
    """Serves requests one after another in a thread of its own until `close`.

    `handle` answers a call with its exit status; what it raises is for the caller of `failure`: it is kept, and the
    client gets status 1, so that the script ends and the error is shown with the step. With `tells_failures` the client
    itself is told instead: a person is there, and no step will end.
    """

    def __init__(self, directory: Path, handle: Callable[[Call], int]) -> None:
        self._directory = directory
        self._handle = handle
        self._fifo = directory / "request"
        self._failure: BaseException | None = None
        self.tells_failures = False
        os.mkfifo(self._fifo, 0o622)
        self._fifo.chmod(0o622)
        directory.chmod(0o1777)
        self._descriptor = os.open(self._fifo, os.O_RDWR | os.O_CLOEXEC)  # our own writer: no end of file in between
        self._thread = threading.Thread(target=self._serve, name="dibble-control", daemon=True)
        self._thread.start()

    def failure(self) -> BaseException | None:
        """What the last failing call raised, once."""
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> None:
        os.write(self._descriptor, f"{_STOP}\n".encode())
        self._thread.join()
        os.close(self._descriptor)

    def _serve(self) -> None:
        with os.fdopen(os.dup(self._descriptor), "r", errors="replace") as requests:
            for line in requests:
                name = line.strip()
                if name == _STOP:
                    return
                if _NAME.fullmatch(name):
                    self._answer(self._directory / name)

    def _answer(self, place: Path) -> None:
        try:
            with (place / "reply").open("w") as reply:
                self._reply(place, reply)
        except OSError:
            return  # the client is gone; its script has ended or will say so

    def _reply(self, place: Path, reply: IO[str]) -> None:
        def writer(mark: str) -> Callable[[str], None]:
            def write(line: str) -> None:
                reply.write(f"{mark} {line}\n")
                reply.flush()

            return write

        try:
            arguments = _fields(place / "args")
            environment = dict(field.split("=", 1) for field in _fields(place / "env") if "=" in field)
            cwd = (place / "cwd").read_text().rstrip("\n")
            call = Call(arguments[0], tuple(arguments[1:]), cwd, environment, writer("o"), writer("e"))
            status = self._handle(call)
        except BaseException as error:  # noqa: BLE001 - shown by the step that the caller runs
            status = 1
            if self.tells_failures:
                for line in (str(error) or type(error).__name__).splitlines():
                    reply.write(f"e {line}\n")
            else:
                self._failure = error
        reply.write(f"x {status}\n")


def _fields(path: Path) -> list[str]:
    return [os.fsdecode(field) for field in path.read_bytes().split(b"\0")[:-1]]
