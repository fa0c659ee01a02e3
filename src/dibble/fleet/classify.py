"""Why a build failed, by evidence: the class of its error, what the system said, how the program ended."""

from __future__ import annotations

from dibble.errors import (
    NO_ROOM,
    BootError,
    DibbleError,
    DiskLayoutError,
    ElementError,
    FetchError,
    FileGone,
    HookFailed,
    HostError,
    Interrupted,
    MidSync,
    NoSuchPackage,
    NoSuchSuite,
    NotSupported,
    OutputError,
    PackageError,
    ProcessKilled,
    ReadError,
    RecipeError,
    SignatureError,
    StoreError,
    ToolFailed,
    ToolMissing,
    UsageError,
)
from dibble.fleet.model import FailureClass

NOT_FOUND = 127
"""What a shell ends with when there is no such program (POSIX.1-2017, XCU 2.8.2)."""
_EX_SOFTWARE = 70  # sysexits(3): dibble's status for a fault of its own

# The first that an error is of counts: what says more comes first.
_CLASSES: tuple[tuple[type[DibbleError], FailureClass], ...] = (
    (MidSync, FailureClass.MID_SYNC),
    (SignatureError, FailureClass.SIGNATURE),
    (NoSuchSuite, FailureClass.UNSUPPORTED),
    (FileGone, FailureClass.MID_SYNC),  # its lists name the file
    (FetchError, FailureClass.NETWORK),
    (NoSuchPackage, FailureClass.MISSING_PACKAGE),
    (PackageError, FailureClass.PACKAGES),
    (ToolMissing, FailureClass.MISSING_TOOL),
    (ProcessKilled, FailureClass.WORKER_LOST),
    (NotSupported, FailureClass.UNSUPPORTED),
    (HostError, FailureClass.HOST),
    (ToolFailed, FailureClass.TOOL),
    (BootError, FailureClass.BOOT),
    (StoreError, FailureClass.HOST),
    (OutputError, FailureClass.HOST),
    (UsageError, FailureClass.BAD_INPUT),
    (RecipeError, FailureClass.BAD_INPUT),
    (ElementError, FailureClass.BAD_INPUT),
    (DiskLayoutError, FailureClass.BAD_INPUT),
    (ReadError, FailureClass.BAD_INPUT),
)

PASSING = frozenset(
    {
        FailureClass.NETWORK,
        FailureClass.MID_SYNC,
        FailureClass.SCRIPT,
        FailureClass.TOOL,
        FailureClass.TIMEOUT,
        FailureClass.BOOT,
        FailureClass.WORKER_LOST,
        FailureClass.PACKAGES,
        FailureClass.DIBBLE,
    }
)
"""Failures that may pass when it is tried again. The others are there until somebody changes something."""


def classify(error: DibbleError) -> FailureClass | None:
    """The class of the error that ended a build; None for one that the user ended."""
    if isinstance(error, Interrupted):
        return None
    if error.system_error in NO_ROOM:
        return FailureClass.DISK_FULL
    if isinstance(error, HookFailed):
        return _of_hook(error)
    for kind, failure in _CLASSES:
        if isinstance(error, kind):
            return failure
    # What a phase left is looked at when its scripts are through (run/executor.py).
    return FailureClass.SCRIPT if error.failed_step else FailureClass.DIBBLE


def shown_class(error: DibbleError) -> list[str]:
    """The class as a line of an error's text shows it; none for what the user wrote, where the sentence says it all."""
    found = classify(error)
    return [found.value] if found is not None and found is not FailureClass.BAD_INPUT else []


def _of_hook(error: HookFailed) -> FailureClass:
    """A script is at fault, unless it was seen that something else was."""
    if error.unreachable:
        return FailureClass.NETWORK
    if error.exit_status == NOT_FOUND:
        return FailureClass.MISSING_TOOL
    return FailureClass.SCRIPT


def of_status(status: int) -> FailureClass:
    """The class of a build that ended with a status and did not say why."""
    if status == _EX_SOFTWARE:
        return FailureClass.DIBBLE
    if status > 128:
        return FailureClass.WORKER_LOST
    return FailureClass.BAD_INPUT if status == UsageError.exit_status else FailureClass.DIBBLE
