"""The user's terminal on the guest's serial line: every key goes to the guest but those that end it."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

HOW_TO_LEAVE = "Ctrl-] or Ctrl-a x ends the guest"

_LEAVE = 0x1D  # Ctrl-], as telnet(1) has it
_PREFIX = 0x01  # Ctrl-a, as QEMU and screen(1) have it
_READ_SIZE = 65536


class Keys:
    """Sorts what the user types: what the guest gets, and whether the user wants to leave."""

    def __init__(self) -> None:
        self._prefixed = False
        self.leaving = False

    def feed(self, typed: bytes) -> bytes:
        """The bytes for the guest; what follows the keys to leave is dropped. Ctrl-a Ctrl-a is one Ctrl-a."""
        out = bytearray()
        for key in typed:
            if self._prefixed:
                self._prefixed = False
                if key in b"xX":
                    self.leaving = True
                    break
                out += bytes([_PREFIX]) if key in (_PREFIX, ord("a")) else bytes([_PREFIX, key])
            elif key == _LEAVE:
                self.leaving = True
                break
            elif key == _PREFIX:
                self._prefixed = True
            else:
                out.append(key)
        return bytes(out)


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Every key at once and unchanged, Ctrl-C too; as it was at the end. Nothing to do for what is no terminal."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def connect(line: socket.socket, keyboard: int, screen: int, log: IO[bytes] | None = None) -> bool:
    """Pass bytes both ways until the guest ends (False) or the user leaves, or has nothing more to say (True)."""
    keys = Keys()
    with _raw(keyboard):
        while True:
            ready, _, _ = select.select([line.fileno(), keyboard], [], [])
            if line.fileno() in ready:
                try:
                    data = line.recv(_READ_SIZE)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return False
                if log is not None:
                    log.write(data)
                    log.flush()
                while data:
                    data = data[os.write(screen, data) :]
            if keyboard in ready:
                typed = os.read(keyboard, _READ_SIZE)
                try:
                    line.sendall(keys.feed(typed))
                except (BrokenPipeError, ConnectionResetError):
                    return False
                if keys.leaving or not typed:
                    return True
