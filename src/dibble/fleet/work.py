"""One try at a cell, wherever that is: `dibble build` as a process of its own, then a boot of the image if wanted."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.errors import DibbleError, OutputError
from dibble.fleet.classify import classify, of_status
from dibble.fleet.model import Attempt, FailureClass, Outcome, OutputFile
from dibble.fleet.pool import JobResult, Seen
from dibble.fleet.spec import BootCheck
from dibble.sandbox.process import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dibble.fleet.pool import Job
    from dibble.sandbox.process import Running

    Listen = Callable[[Mapping[str, Any]], None]

RECIPE, LOG = "cell.yaml", "build.log"
DIBBLE = (sys.executable, "-P", "-s", "-m", "dibble")
BOOTABLE = ("qcow2", "raw", "vmdk", "vhd", "vhdx", "vdi", "iso")
"""Formats that `dibble boot` takes, those that need no conversion first."""
UNIT_TESTS = ("-m", "unit", "-q", "-p", "no:cacheprovider")
GRACE_SECONDS = 10.0
_LAST_LINES = 20


@dataclass(slots=True)
class Stop:
    """Ends a try from another thread: at the end of its time, or because the run is over."""

    reason: str = ""
    _running: Running | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self, reason: str) -> None:
        """As a terminal does with Ctrl-C; what does not end then is killed. Only the first reason counts."""
        with self._lock:
            self.reason = self.reason or reason
            if self._running is not None and self._running.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._running.pid, signal.SIGINT)
                killer = threading.Timer(GRACE_SECONDS, self._kill, (self._running,))
                killer.daemon = True
                killer.start()

    def watch(self, running: Running) -> None:
        """`running` is what there is to end; at once, when the word has been given already."""
        with self._lock:
            self._running = running
        if self.reason:
            self.now(self.reason)

    def _kill(self, running: Running) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if running is self._running and running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


INTERRUPTED, TIMEOUT = "interrupted", "timeout"


def run_job(job: Job, listen: Listen, stop: Stop) -> JobResult:
    """Build the cell. Never raises for what goes wrong with it: that is the result."""
    began, clock = time.time(), time.monotonic()
    worker = platform.node()
    limit = job.work.policy.timeout_s
    timer = threading.Timer(limit, stop.now, (TIMEOUT,)) if limit else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    seen, boot = Seen(), ""
    failure: FailureClass | None = None
    reason, hint, status = "", "", 0
    try:
        status, last = _build(job, listen, stop, seen)
        if status:
            failure, reason, hint = _why(seen.failed, status, last)
        elif job.work.policy.boot:
            status, boot, found = _boot(job, seen, listen, stop)
            if status:
                failure, reason, hint = _why(found, status, [boot], FailureClass.BOOT)
    except DibbleError as error:
        failure, reason, hint, status = classify(error), error.message, error.hint, error.exit_status
        _log(job, f"dibble: {error}")
    finally:
        if timer is not None:
            timer.cancel()
    if stop.reason == TIMEOUT and status:
        failure, reason, hint = FailureClass.TIMEOUT, f"not done after {limit} s", "give it more with timeout"
        _log(job, f"dibble: {reason}")
    outcome = Outcome.FAILED if failure else Outcome.SUCCESS
    seconds = time.monotonic() - clock
    return JobResult(
        Attempt(worker, began, seconds, outcome, failure, reason, hint, status),
        seen.steps_run,
        seen.steps_cached,
        seen.timings,
        tuple(seen.outputs),
        boot,
        interrupted=stop.reason == INTERRUPTED and failure is not None,
    )


def _build(job: Job, listen: Listen, stop: Stop, seen: Seen) -> tuple[int, list[str]]:
    """Build; returns the status and the last lines that are no events."""
    directory = job.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if job.attempt == 1:
            (directory / LOG).unlink(missing_ok=True)
        (directory / RECIPE).write_text(recipe_text(job), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}", hint="see --out") from error
    return _watched(_command(job), job, stop, lambda event: _heard(event, seen, listen))


def _command(job: Job) -> list[str]:
    """What the cell runs, here or in its host's tree."""
    tests = job.work.tests
    if job.tree is None:
        return [str(tests / "test"), *UNIT_TESTS] if tests else [*DIBBLE, "build", "--json", RECIPE]
    from dibble.fleet.hosts import CHECKOUT, in_tree

    if tests is not None:
        return in_tree(job, ["-m", "pytest", "--rootdir", str(CHECKOUT), str(CHECKOUT), *UNIT_TESTS], tests)
    return in_tree(job, ["-P", "-s", "-m", "dibble", "build", "--json", RECIPE])


def recipe_text(job: Job) -> str:
    """The recipe of the cell, which builds it again by hand: `cd DIRECTORY && dibble build cell.yaml`."""
    from dibble.recipe.read import dumped

    own: dict[str, Any] = {"name": job.work.image, "logfile": LOG, "overwrite": True}
    folders = job.environment.get("ELEMENTS_PATH")
    if folders and "elements-path" not in job.work.recipe:
        own["elements-path"] = folders.split(":")
    return f"# The cell {job.name}\n{dumped({**job.work.recipe, **own})}"


def _watched(
    argv: Sequence[str], job: Job, stop: Stop, heard: Callable[[Mapping[str, Any]], None]
) -> tuple[int, list[str]]:
    last: list[str] = []
    with spawn(argv, env=job.environment, cwd=job.directory) as running:
        stop.watch(running)
        assert running.stdout is not None
        for raw in running.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            event = _event_of(line)
            if event is None:
                last = [*last[1 - _LAST_LINES :], line]
                _log(job, line)
            else:
                heard(event)
        status = running.wait()
    return 1 if status is None else status, last


def _event_of(line: str) -> Mapping[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _heard(event: Mapping[str, Any], seen: Seen, listen: Listen) -> None:
    match event:
        case {"event": "StepFinished"}:
            seen.steps_run += 1
        case {"event": "StepCached"}:
            seen.steps_cached += 1
        case {"event": "BuildFinished", "steps_run": run, "steps_cached": cached, "timings": timings}:
            seen.steps_run, seen.steps_cached = run, cached
            seen.timings = tuple((str(what), float(seconds)) for what, seconds in timings)
        case {"event": "ArtifactWritten", "path": path, "format": kind, "size": size, "allocated": allocated}:
            seen.outputs.append(OutputFile(path.rpartition("/")[2], kind, size, allocated))
            seen.paths.setdefault(kind, path)
        case {"event": "Failed"}:
            seen.failed = event
    listen(event)


def _why(
    failed: Mapping[str, Any] | None, status: int, last: Sequence[str], default: FailureClass | None = None
) -> tuple[FailureClass, str, str]:
    """(class, reason, hint) of a build that ended so, by what it said of itself, else by its exit status."""
    if failed is not None:
        name = failed.get("failure")
        failure = FailureClass(name) if name else default or of_status(status)
        return failure, " ".join(str(failed.get("message", "")).split()), str(failed.get("hint") or "")
    text = next((line for line in reversed(last) if line.strip()), "")
    failure, reason = default or of_status(status), text.removeprefix("dibble: ")
    if status > 128:
        reason = f"killed by signal {status - 128}"
    return failure, reason or f"ended with status {status}", ""


def _boot(job: Job, seen: Seen, listen: Listen, stop: Stop) -> tuple[int, str, Mapping[str, Any] | None]:
    """Boot the image; returns the status, what the boot showed, and the event that tells of a failure.

    A cell without an image that boots is not booted, and that is no failure.
    """
    check = job.work.policy.boot
    kind = next((kind for kind in BOOTABLE if kind in seen.paths), None)
    if not isinstance(check, BootCheck) or kind is None:
        return 0, "", None
    found: dict[str, Any] = {}

    def heard(event: Mapping[str, Any]) -> None:
        if event["event"] in ("BootFinished", "Failed"):
            found.update(event)
        listen(event)

    image = job.directory / seen.paths[kind]
    status, last = _watched([*DIBBLE, "boot", "--json", *boot_words(check, job, image)], job, stop, heard)
    error = found.get("error") or {}
    if status:
        told = {"message": error.get("message"), "hint": error.get("hint"), "failure": FailureClass.BOOT.value}
        return status, " ".join(last[-1:]), told if error else found or None
    seconds = found.get("seconds", {})
    after = seconds.get("prompt") or seconds.get("end") or max(seconds.values(), default=0)
    what = f'"{check.marker}"' if check.marker else "login"
    return 0, f"{what} after {after:.0f} s ({found.get('accelerator', '')})", None


def boot_words(check: BootCheck, job: Job, image: Path) -> list[str]:
    """The options of `dibble boot` for a check, and the image."""
    words = ["--timeout", str(check.timeout_s), "--memory", str(check.memory_mib)]
    for flag, text in (("--marker", check.marker), ("--login", check.login), ("--password", check.password)):
        words += [flag, text] if text else []
    for command in check.commands:
        words += ["--command", command]
    preset = job.work.recipe.get("preset")
    words += ["--environment", str(preset)] if preset else []
    return [*words, "--serial-log", str(job.directory / "boot.log"), str(image)]


def _log(job: Job, line: str) -> None:
    with contextlib.suppress(OSError), (job.directory / LOG).open("a", encoding="utf-8", errors="replace") as log:
        log.write(f"{line}\n")
