"""Several images at once, each in a process of its own: one for each architecture of a request."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dibble.errors import Interrupted
from dibble.sandbox.memory import available_bytes, builds_at_once
from dibble.sandbox.process import spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.recipe.model import Request
    from dibble.recipe.options import Command
    from dibble.sandbox.process import Running


def jobs(wanted: int, cores: int, available: int) -> int:
    """How many of `wanted` builds run at a time, with so many cores and bytes of available memory; at least one."""
    return min(wanted, builds_at_once(cores, available))


def build_several(requests: Sequence[Request], arguments: Sequence[str], *, command: Command, as_json: bool) -> int:
    """Build them, as many at a time as cores and memory allow; the status of the first that fails, in their order.

    Each line of output begins with the architecture; as JSON, each event has it under `arch`. The others finish when
    one fails; an interruption ends all.
    """
    running: list[Running] = []
    lock = threading.Lock()
    stopped = threading.Event()

    def one(request: Request) -> int:
        argv = [sys.executable, "-P", "-s", "-m", "dibble", command, *_arguments(arguments, request)]
        with lock:
            if stopped.is_set():
                return Interrupted.exit_status
            process = spawn(argv, env=dict(os.environ), cwd=request.cwd)
            running.append(process)
        with process:
            assert process.stdout is not None
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                with lock:
                    print_line(line, request.arch, as_json=as_json)
            status = process.wait()
        return 1 if status is None else status

    with ThreadPoolExecutor(jobs(len(requests), os.cpu_count() or 1, available_bytes())) as pool:
        futures = [pool.submit(one, request) for request in requests]
        try:
            statuses = [future.result() for future in futures]
        except KeyboardInterrupt:
            with lock:
                stopped.set()
                for process in running:
                    if process.poll() is None:
                        # As a terminal does: to the whole group, of which each build hears in its namespace.
                        os.killpg(process.pid, signal.SIGINT)
            raise Interrupted("stopped by the user") from None
    return next((status for status in statuses if status), 0)


def _arguments(arguments: Sequence[str], request: Request) -> list[str]:
    """The caller's arguments for one architecture: what stands last counts, but nothing behind `--` is an option."""
    own = ["-a", request.arch, "-o", request.name]
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    return [*given[:end], *own, *given[end:]]


def print_line(line: str, arch: str, *, as_json: bool) -> None:
    """Print a line of one build as its own."""
    if as_json and line.startswith("{"):
        with contextlib.suppress(ValueError):
            sys.stdout.write(json.dumps({"arch": arch, **json.loads(line)}) + "\n")
            sys.stdout.flush()
            return
    sys.stdout.write(f"{arch}: {line}\n")
    sys.stdout.flush()
