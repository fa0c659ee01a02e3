"""The error classes, split by who has to act. Every error that a user can cause or meet is one of these.

Anything else that reaches the top of `cli/` is a fault in dibble and shows a traceback.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type, read at run time by tools

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What errno(3) is when a file system, or what the user may have of it, is full."""


@dataclass(frozen=True, slots=True)
class Where:
    """The place an error speaks of. All parts are optional; lines and columns count from 1."""

    file: Path | str | None = None
    line: int | None = None
    column: int | None = None
    element: str | None = None
    step: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        extra = [f"{name} {value}" for name, value in (("element", self.element), ("step", self.step)) if value]
        return ", ".join(part for part in (place, *extra) if part)


class DibbleError(Exception):
    """One sentence that names the thing, where it is, and an order that can be followed to mend it .

    `exit_status` is what the command line returns: 2 for what the user wrote, 1 for what went wrong on the way.
    """

    exit_status = 1
    failed_step = ""
    """The id of the build's step that this ended."""
    way_in = ""
    """The command line that leads to where that step failed."""
    _number: int | None = None  # set where the error that it came from is left behind, or by who saw the disk full

    def __init__(self, message: str, *, hint: str = "", where: Where | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where or Where()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, {**self.__dict__, "_number": self.system_error})

    @property
    def system_error(self) -> int | None:
        """What the system said (errno(3)) where this error came from that; it stays known across processes."""
        cause: BaseException | None = self
        while cause is not None:
            number = cause._number if isinstance(cause, DibbleError) else getattr(cause, "errno", None)
            if isinstance(number, int):
                return number
            cause = cause.__cause__
        return None

    @system_error.setter
    def system_error(self, number: int | None) -> None:
        self._number = number

    def __str__(self) -> str:
        place = str(self.where)
        head = f"{place}: {self.message}" if place else self.message
        return "\n".join([head, *(f"  hint: {hint}" for hint in self.hints)])

    @property
    def hints(self) -> list[str]:
        """What to do: the mend, and where to look."""
        look = f"to look around where it failed: {self.way_in}" if self.way_in else ""
        return [hint for hint in (self.hint, look) if hint]


def _rebuild(kind: type[DibbleError], arguments: tuple[object, ...], state: dict[str, object]) -> DibbleError:
    """Make a pickled error again (errors cross from the sandbox), whatever its class's own arguments are."""
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error


class UsageError(DibbleError):
    """The command line is wrong."""

    exit_status = 2


class RecipeError(DibbleError):
    """A recipe file is wrong."""

    exit_status = 2


class ElementError(DibbleError):
    """An element, or the set of elements, is wrong."""

    exit_status = 2


class DiskLayoutError(DibbleError):
    """A block-device description cannot be laid out."""

    exit_status = 2


class ReadError(DibbleError):
    """An image that a build begins with cannot be read."""

    exit_status = 2


class HostError(DibbleError):
    """The host lacks a right, a kernel feature, space or a tool."""


class ToolMissing(HostError):
    """A program is not there."""


class NotSupported(HostError):
    """This machine, as it is, cannot build such a target at all."""


class ProcessKilled(DibbleError):
    """The process of a build was ended from outside."""


class FetchError(DibbleError):
    """A download failed: network, mirror, checksum."""


class FileGone(FetchError):
    """Every server that answered says that it has no such file (any more)."""


class NoSuchSuite(FileGone):
    """The servers have no such release, or not for this architecture."""


class MidSync(FetchError):
    """What a mirror's lists name is not there yet, or of other content: it is being changed."""


class SignatureError(FetchError):
    """Signed data does not verify; it is never used."""


class PackageError(DibbleError):
    """Packages cannot be resolved, unpacked or configured."""


class NoSuchPackage(PackageError):
    """A package that was asked for is in no repository."""


class NotKnownYet(PackageError):
    """What a request comes to, only the tree can tell that is not built yet."""


@dataclass(frozen=True, slots=True)
class HookOutput:
    """The end of what a hook printed, oldest line first."""

    lines: tuple[str, ...] = field(default=())


class HookFailed(DibbleError):
    """A hook ended with a status other than 0; that status is dibble's own (contract.md 1.5)."""

    def __init__(
        self, message: str, *, status: int, output: HookOutput, hint: str = "", where: Where | None = None
    ) -> None:
        super().__init__(message, hint=hint, where=where)
        self.exit_status = status
        self.output = output
        self.unreachable = ""
        """A server that the hook asked and that does not answer."""


class StoreError(DibbleError):
    """The store cannot be read or written."""


class OutputError(DibbleError):
    """An output cannot be written."""


class BootError(DibbleError):
    """A guest did not come up."""


class ToolFailed(DibbleError):
    """A program of the tools tree failed. Carries what repeats it."""

    def __init__(self, argv: tuple[str, ...], status: int, output: str, *, hint: str = "") -> None:
        last = "\n".join("    " + line for line in output.strip().splitlines()[-12:])
        super().__init__(f"{argv[0]} ended with status {status}: {' '.join(argv)}" + (f"\n{last}" if last else ""))
        self.hint = hint
        self.argv = argv
        self.status = status
        self.output = output


class Interrupted(DibbleError):
    """The user stopped the run. 130 is 128 + SIGINT, as shells report it."""

    exit_status = 130
