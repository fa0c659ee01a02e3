"""The one door to running programs: nothing else imports `subprocess`.

The environment is built from nothing, standard input is closed unless given, and a failure carries the argument list.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import termios
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dibble.errors import HostError, ToolFailed, ToolMissing
from dibble.sandbox.nosync import without_syncs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dibble.sandbox.netwatch import Listener

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Completed:
    """`output` holds standard output and standard error as they came; with `on_line`, only the last 200 lines."""

    argv: tuple[str, ...]
    status: int
    output: str


def exit_status(returncode: int) -> int:
    """The status a shell would report: 128 + n for a process that signal n ended."""
    return 128 - returncode if returncode < 0 else returncode


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    root: Path | None = None,
    cwd: str | Path | None = None,
    stdin: bytes | None = None,
    stdout_file: IO[bytes] | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    interactive: bool = False,
    new_session: bool = True,
    listener: Listener | None = None,
    durable: bool = True,
) -> Completed:
    """Run a program to its end; with `root`, chrooted there (which needs CAP_SYS_CHROOT, as in our namespace).

    `cwd` is a path inside `root`. Output lines go to `on_line` as they come. With `stdout_file` standard output goes
    there and only standard error is collected. The child dies with its parent thread (PR_SET_PDEATHSIG), so call from
    a thread that lives as long. `listener` hears which servers it reaches. Without `durable` nothing that it does
    waits for the disk (`nosync.py`). Raises ToolFailed when `check` and the status is not 0; HostError when the program
    does not exist.
    """

    program = list(map(str, argv))
    process: subprocess.Popen[bytes] | None = None
    try:
        with _fork_undisturbed():
            process = subprocess.Popen(
                program,
                env=dict(env),
                stdin=None if interactive else subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=None if interactive else stdout_file or subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE if stdout_file else subprocess.STDOUT,
                preexec_fn=_before_exec(root, cwd, listener, durable=durable),  # noqa: PLW1509 - it makes plain system calls only
                start_new_session=new_session and not interactive,
            )
    except _CANNOT_START as error:
        raise _cannot_start(program[0], error) from error
    except BaseException:
        _end(process)
        raise
    if listener is not None:
        listener.start()
    lines: deque[str] = deque(maxlen=200 if on_line else None)
    try:
        if not interactive:
            _pump(process, stdin, bool(stdout_file), lines, on_line)
        status = exit_status(process.wait())
    except BaseException:
        _end(process)
        raise
    output = "\n".join(lines)
    if check and status:
        raise ToolFailed(tuple(program), status, output)
    return Completed(tuple(program), status, output)


class Running:
    """A program that runs on. As a context manager it is killed at the end of the block, if it lives yet."""

    def __init__(self, argv: tuple[str, ...], process: subprocess.Popen[bytes]) -> None:
        self.argv = argv
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """Standard output and standard error as they come; None when they go to a file."""
        return self._process.stdout

    def poll(self) -> int | None:
        """The exit status as a shell reports it; None while the program runs."""
        returncode = self._process.poll()
        return None if returncode is None else exit_status(returncode)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """As `poll`, after waiting for at most `timeout_s` seconds, or for ever."""
        try:
            return exit_status(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._process.terminate()

    def kill(self) -> None:
        """End it now, wait for that and close the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # bytes not yet written, to a reader that is gone
                    pipe.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    root: Path | None = None,
    cwd: str | Path | None = None,
    stdin: bool = False,
    output_file: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    terminal: int | None = None,
    durable: bool = True,
) -> Running:
    """Start a program and leave it running, in a session of its own; the rest is as in `run`.

    `stdin` opens a pipe to it. Standard output and standard error go to one pipe, or both to `output_file`. The
    descriptors in `pass_fds` stay open in the program under the same numbers. `terminal` is a descriptor of a terminal
    that becomes all three, and the controlling terminal of the session. `durable` is as in `run`.
    """
    program = list(map(str, argv))
    on_terminal = terminal is not None
    process: subprocess.Popen[bytes] | None = None
    try:
        with _fork_undisturbed():
            process = subprocess.Popen(
                program,
                env=dict(env),
                stdin=terminal if on_terminal else subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=terminal if on_terminal else output_file or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=_before_exec(root, cwd, on_terminal=on_terminal, durable=durable),  # noqa: PLW1509 - plain system calls only
                start_new_session=True,
                pass_fds=pass_fds,
            )
    except _CANNOT_START as error:
        raise _cannot_start(program[0], error) from error
    except BaseException:
        _end(process)
        raise
    return Running(tuple(program), process)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _fork_undisturbed() -> Iterator[None]:
    """Let an interruption wait until a child has been made.

    Python drops an exception in what is called around a fork (os.register_at_fork), and with it a KeyboardInterrupt.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_CANNOT_START = (FileNotFoundError, PermissionError, NotADirectoryError, subprocess.SubprocessError)


def _cannot_start(program: str, error: Exception) -> HostError:
    kind = ToolMissing if isinstance(error, FileNotFoundError | NotADirectoryError) else HostError
    return kind(f"cannot start {program}: {error}", hint=f"is {program} installed there?")


_OF_A_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def _before_exec(
    root: Path | None,
    cwd: str | Path | None,
    listener: Listener | None = None,
    *,
    on_terminal: bool = False,
    durable: bool = True,
) -> Callable[[], None]:
    """What the child does first: ask to die with its parent, be heard, and enter `root` and there `cwd`.

    With `on_terminal`, its standard input becomes the controlling terminal of its new session (ioctl_tty(2)).
    """
    not_wait = None if durable else without_syncs()
    be_heard = listener.before_exec if listener is not None else None

    def before_exec() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if callable(signal.getsignal(signal.SIGINT)):  # as after the exec
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if on_terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for number in _OF_A_TERMINAL:  # a caller in the background of a shell has them ignored
                signal.signal(number, signal.SIG_DFL)
        if be_heard is not None:
            be_heard()
        if not_wait is not None:
            not_wait()
        if root is not None:
            os.chroot(root)
        os.chdir(cwd or "/")

    return before_exec


def _pump(
    process: subprocess.Popen[bytes],
    stdin: bytes | None,
    only_stderr: bool,
    lines: deque[str],
    on_line: Callable[[str], None] | None,
) -> None:
    if stdin is not None:
        assert process.stdin is not None
        import threading

        def feed(pipe: IO[bytes], data: bytes) -> None:
            try:
                with pipe:
                    pipe.write(data)
            except BrokenPipeError:
                return  # the program ended without reading everything; its status tells

        threading.Thread(target=feed, args=(process.stdin, stdin), daemon=True).start()
    stream = process.stderr if only_stderr else process.stdout
    assert stream is not None
    with stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n").rpartition("\r")[2] or ""
            lines.append(line)
            if on_line:
                on_line(line)


def host_environment(*names: str) -> dict[str, str]:
    """A small environment for host programs: PATH and LC_ALL, plus the named variables where they are set."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    env.update({name: os.environ[name] for name in names if name in os.environ})
    return env


def find_helper(name: str) -> Path | None:
    """A host helper by absolute path, in the places where distributions put it; PATH does not matter."""
    for folder in ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"):
        candidate = Path(folder) / name
        if os.access(candidate, os.X_OK):
            return candidate
    return None
