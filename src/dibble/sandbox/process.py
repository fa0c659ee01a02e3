"""The one door to running programs: nothing else imports `subprocess`.

The environment is built from nothing, standard input is closed unless given, and a failure carries the argument list.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dibble.errors import HostError, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
) -> Completed:
    """Run a program to its end; with `root`, chrooted there (which needs CAP_SYS_CHROOT, as in our namespace).

    `cwd` is a path inside `root`. Output lines go to `on_line` as they come. With `stdout_file` standard output goes
    there and only standard error is collected. The child dies with its parent thread (PR_SET_PDEATHSIG), so call from
    a thread that lives as long. Raises ToolFailed when `check` and the status is not 0; HostError when the program
    does not exist.
    """

    def before_exec() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if root is not None:
            os.chroot(root)
        os.chdir(cwd or "/")

    program = list(map(str, argv))
    try:
        process = subprocess.Popen(  # noqa: PLW1509 - only async-signal-safe calls; one thread forks at a time
            program,
            env=dict(env),
            stdin=None if interactive else subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=None if interactive else stdout_file or subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE if stdout_file else subprocess.STDOUT,
            preexec_fn=before_exec,
            start_new_session=new_session and not interactive,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError, subprocess.SubprocessError) as error:
        raise HostError(f"cannot start {program[0]}: {error}", hint=f"is {program[0]} installed there?") from error
    lines: deque[str] = deque(maxlen=200 if on_line else None)
    try:
        if not interactive:
            _pump(process, stdin, bool(stdout_file), lines, on_line)
        status = exit_status(process.wait())
    except BaseException:
        process.kill()
        process.wait()
        raise
    output = "\n".join(lines)
    if check and status:
        raise ToolFailed(tuple(program), status, output)
    return Completed(tuple(program), status, output)


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
