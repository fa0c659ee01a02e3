"""A program on a terminal of its own, with the caller's terminal passed through to it.

The caller's terminal has its foreground process group outside our PID namespace, so a shell in here could not take it:
no job control, no Ctrl-C for a child alone. So the program gets a pseudo terminal of the view's own devpts as its
controlling terminal (pty(7)); every key is handed on as it is typed, and the terminal's size follows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import termios
import tty
from typing import TYPE_CHECKING

from dibble.sandbox.process import spawn
from dibble.sandbox.syscalls import unlock_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

KEYBOARD, SCREEN = 0, 1
_READ_SIZE = 65536
_AFTER_END = 1 << 20
"""Bytes that are still shown when the program has ended: what it left running may go on printing for ever."""
_HANGUP_S = 5.0
"""How long a program may take to end after its terminal is gone, before it is killed."""
_HUNG_UP = 129  # 128 + SIGHUP, as shells report it
_WINSIZE = b"\0" * 8  # struct winsize, ioctl_tty(2)


def is_terminal() -> bool:
    """Whether a person sits before our standard input and output."""
    return os.isatty(KEYBOARD) and os.isatty(SCREEN)


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Leave the terminal as it was found, even when a process that had changed it was killed."""
    if not os.isatty(KEYBOARD):
        yield
        return
    before = termios.tcgetattr(KEYBOARD)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(KEYBOARD, termios.TCSADRAIN, before)


def run_on_terminal(argv: Sequence[str], *, env: Mapping[str, str], root: Path, cwd: str | Path, devpts: Path) -> int:
    """Run a program chrooted to `root` on a new terminal of `devpts`, until it ends; returns its exit status.

    `devpts` is where we see the file system that the program sees at /dev/pts. Call from the main thread.
    Raises HostError when the program cannot be started.
    """
    master, slave = _open_terminal(devpts)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, master)
        try:
            _copy_size(master)
            program = spawn(argv, env=env, root=root, cwd=cwd, terminal=slave)
        finally:
            os.close(slave)  # so that reading ends when nobody in there has it any more
        stack.enter_context(program)
        followed = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
        stack.callback(signal.signal, signal.SIGWINCH, followed)
        stack.enter_context(settings_kept())
        tty.setraw(KEYBOARD, termios.TCSADRAIN)  # what was typed ahead stays
        if not _pass_on(program.pid, master):
            os.kill(program.pid, signal.SIGHUP)
            return program.wait(_HANGUP_S) or _HUNG_UP
        status = program.wait()
    assert status is not None
    return status


def _open_terminal(devpts: Path) -> tuple[int, int]:
    master = os.open(devpts / "ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        number = unlock_terminal(master)
        return master, os.open(devpts / str(number), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise


def _copy_size(master: int) -> None:
    with contextlib.suppress(OSError):  # our terminal was hung up
        size = fcntl.ioctl(SCREEN, termios.TIOCGWINSZ, _WINSIZE)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _pass_on(pid: int, master: int) -> bool:
    """Hand on what is typed and what is printed until the program `pid` ends, or its terminal has no user left (True),
    or ours is hung up (False)."""
    ended = os.pidfd_open(pid)
    os.set_blocking(master, False)
    typed = b""
    sources = [master, KEYBOARD, ended]
    left = _AFTER_END
    try:
        while left > 0:
            # While the program takes nothing, nothing more is read from the keyboard.
            waiting = [source for source in sources if source != KEYBOARD or not typed]
            readable, writable, _ = select.select(waiting, [master] if typed else [], [])
            if writable:
                with contextlib.suppress(BlockingIOError):
                    typed = typed[os.write(master, typed) :]
            if KEYBOARD in readable:
                typed = _read(KEYBOARD)
                if not typed:
                    return False
            if master in readable:
                printed = _read(master)
                if not printed:
                    return True
                left -= len(printed) if ended in readable else 0
                if not _show(printed):
                    return False
            elif ended in readable:
                return True
        return True
    finally:
        os.close(ended)


def _read(descriptor: int) -> bytes:
    """Some bytes; none at the end, which for a terminal is an error (EIO)."""
    try:
        return os.read(descriptor, _READ_SIZE)
    except OSError:
        return b""


def _show(data: bytes) -> bool:
    """Whether it could be shown; not on a terminal that was hung up."""
    try:
        while data:
            data = data[os.write(SCREEN, data) :]
    except OSError:
        return False
    return True
