"""Running programs of the tools tree, or of the host with `--tools=host`.

Whoever needs mkfs, apt or qemu-img is given a `Toolbox` and never asks where the program comes from.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol

from dibble.sandbox.process import Completed, Running, host_environment, run, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Toolbox(Protocol):
    """Programs under one name each, run with a clean environment."""

    identity: str
    """Names the exact programs (a digest of the lock, or the host's), for keys."""

    root: Path | None
    """The tree that the programs are chrooted to, seen from dibble's own process; None means the host itself."""

    def path(self, path: Path) -> str:
        """The name under which the tools see `path`, an absolute path in dibble's own view."""
        ...

    def ensure(self, *groups: str) -> None:
        """Make groups of tools ready (`core`, `qemu-system` …), fetching them where needed."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        stdout_file: IO[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a tool to its end. Paths in `argv` must be given as `path()` returns them; `env` is added."""
        ...

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bool = False,
        output_file: IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        durable: bool = True,
    ) -> Running:
        """Start a tool and leave it running (`dibble.sandbox.process.spawn`); paths and `env` as in `run`."""
        ...


TOOL_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TMPDIR": "/tmp",  # noqa: S108 - inside the tools tree, private to the build
}


class HostToolbox:
    """The host's own programs (`--tools=host`)."""

    identity = "host"
    root: Path | None = None

    def path(self, path: Path) -> str:
        return str(path)

    def ensure(self, *groups: str) -> None:
        """The host has what it has; a missing program shows when it is called."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        stdout_file: IO[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Completed:
        return run(
            argv,
            env=_host_tools_environment(env),
            cwd=cwd,
            stdin=stdin,
            stdout_file=stdout_file,
            on_line=on_line,
            check=check,
        )

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bool = False,
        output_file: IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        durable: bool = True,
    ) -> Running:
        environment = _host_tools_environment(env)
        return spawn(argv, env=environment, cwd=cwd, stdin=stdin, output_file=output_file, pass_fds=pass_fds)


def _host_tools_environment(env: Mapping[str, str] | None) -> dict[str, str]:
    base = host_environment()
    base["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    return {**base, "HOME": "/root", **(env or {})}
