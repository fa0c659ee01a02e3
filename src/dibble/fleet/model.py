"""What a matrix is and what came of it, as values: they go to workers, into the history and into every report."""

from __future__ import annotations

import enum
from collections.abc import Mapping  # noqa: TC003 - the types of fields are read at run time (reports/as_json.py)
from dataclasses import dataclass, field


class Outcome(enum.StrEnum):
    """How a cell ended. `WAITING` stands in a run that is still going, or was interrupted."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Never started: a cell that it needs failed, or the run was stopped early."""
    UNSUPPORTED = "unsupported"
    """The pair of host and target cannot be, which was known before anything ran."""


class FailureClass(enum.StrEnum):
    """Why a build failed, decided by evidence: the error's class, exit status, what the engine saw."""

    NETWORK = "network"
    MID_SYNC = "mirror mid-sync"
    MISSING_PACKAGE = "missing package"
    MISSING_TOOL = "missing tool"
    UNSUPPORTED = "unsupported pair"
    SCRIPT = "script error"
    DISK_FULL = "disk full"
    TIMEOUT = "timeout"
    BOOT = "boot failure"
    WORKER_LOST = "worker lost"
    BAD_INPUT = "bad input"
    SIGNATURE = "signature"
    PACKAGES = "packages"
    """They cannot be together, be unpacked or be configured."""
    TOOL = "tool failed"
    HOST = "host"
    """A right, a kernel feature or a place to write is missing."""
    DIBBLE = "fault in dibble"


@dataclass(frozen=True, slots=True)
class Cell:
    """One build of the matrix.

    `host` and `target` name its column and its row; `axes` has the value of every axis. `key` is the digest of all that
    decides the result: a resumed run does not run a cell whose key has succeeded.
    """

    name: str
    """Unique in the matrix, made of its axes: `debian-12/fedora-44-amd64-qcow2`."""
    host: str
    target: str
    key: str
    axes: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Names of cells that must have succeeded before."""
    allow_failure: bool = False


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An image that a cell made. `size` is the apparent size in bytes, `allocated` what it takes on disk."""

    name: str
    format: str
    size: int
    allocated: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a cell, on one worker; a cell that fails for a passing reason is tried again."""

    worker: str
    began: float
    """Seconds since the epoch."""
    seconds: float
    outcome: Outcome
    failure: FailureClass | None = None
    reason: str = ""
    """One sentence, the same for the same cause: cells that share it share a footnote."""
    hint: str = ""
    status: int = 0
    """dibble's exit status."""


@dataclass(frozen=True, slots=True)
class CellResult:
    """What is known of a cell at the end of a run; the last attempt decides."""

    cell: Cell
    outcome: Outcome
    attempts: tuple[Attempt, ...] = ()
    steps_run: int = 0
    steps_cached: int = 0
    timings: tuple[tuple[str, float], ...] = ()
    """(what, seconds) in the order things happened."""
    outputs: tuple[OutputFile, ...] = ()
    boot: str = ""
    """What a boot of the image showed (`login after 41 s`); empty when it was not booted."""
    log: str = ""
    """Path of the log, relative to the run's directory."""
    resumed: bool = False
    """It had succeeded in an earlier part of this run."""
    why: str = ""
    """Why it was never started, one sentence as `Attempt.reason` is: skipped and unsupported cells have no attempt."""

    @property
    def flaky(self) -> bool:
        """It succeeded, after a try that did not, though nothing took its machine away."""
        failed = (one.failure for one in self.attempts if one.outcome is Outcome.FAILED)
        return self.outcome is Outcome.SUCCESS and any(failure is not FailureClass.WORKER_LOST for failure in failed)

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def failure(self) -> FailureClass | None:
        """Of a cell that failed, the class of the attempt that decided."""
        return self.last.failure if self.outcome is Outcome.FAILED and self.last else None

    @property
    def reason(self) -> str:
        """Why it is no success, in one sentence; empty for a success."""
        if self.outcome is Outcome.SUCCESS:
            return ""
        return self.last.reason if self.last else self.why

    @property
    def seconds(self) -> float:
        return sum(attempt.seconds for attempt in self.attempts)


@dataclass(frozen=True, slots=True)
class MatrixRun:
    """One run of a matrix, whole or in parts (resumed). `hosts` and `targets` are in the order of the file."""

    id: str
    """Of the run: `2026-11-29T10.55.00-1a2b3c`."""
    matrix: str
    """The name of the matrix."""
    version: str
    """dibble's."""
    began: float
    ended: float | None
    hosts: tuple[str, ...]
    targets: tuple[str, ...]
    results: tuple[CellResult, ...]
