"""What a file system gives: its limits, the space it needs, and itself, written into an extent of an image file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING, Protocol

from dibble.disk.model import Extent, Filesystem  # noqa: TC001 - dataclass field types
from dibble.disk.sizes import human
from dibble.errors import OutputError
from dibble.events import Events  # noqa: TC001 - dataclass field type
from dibble.sandbox.toolbox import Toolbox  # noqa: TC001 - dataclass field type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.disk.model import Defaults


@dataclass(frozen=True, slots=True)
class FilesystemInfo:
    """`label_length` in bytes; `holds_files` is False for swap. `tools` are groups of tools besides `core`."""

    name: str
    label_length: int
    holds_files: bool = True
    upper_case_label: bool = False
    tools: tuple[str, ...] = ()
    has_subvolumes: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file system goes and what goes into it.

    `image` is an existing sparse file, all zero within `extent`. `content` is a directory whose entries, and whose own
    owner and mode, the root of the file system gets; None leaves it empty.
    """

    image: Path
    extent: Extent
    content: Path | None
    toolbox: Toolbox
    events: Events
    epoch: int
    sector_size: int = 512


class FilesystemKind(Protocol):
    """One file system type; registered under its name in `registry.py`."""

    info: FilesystemInfo

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """The bytes below which `allocated` bytes in `files` inodes cannot fit, with no room to spare."""
        ...

    def write(self, node: Filesystem, place: Place) -> None:
        """Make the file system and fill it. Raises OutputError when the content does not fit, ToolFailed."""
        ...


def too_small(node: Filesystem, place: Place, needed: int | None = None) -> OutputError:
    """The error for content that does not fit; `needed` in bytes where it is known."""
    message = f"the file system {node.name} of {human(place.extent.size)} is too small for its content"
    if needed is not None:
        message += f": it needs {human(needed)}"
    return OutputError(
        message,
        hint="give a larger --image-size, or DIB_IMAGE_EXTRA_SIZE, or a larger partition",
        where=node.where,
    )


def value_of(option: str, options: Sequence[str]) -> str | None:
    """What stands behind the last such option, in the same word or the next; None without it."""
    found = None
    for number, word in enumerate(options):
        if word.startswith(option):
            found = word.removeprefix(option).removeprefix("=") or next(iter(options[number + 1 :]), "")
    return found


def refused(node: Filesystem, what: str, output: str = "") -> OutputError:
    """The error for options that ask for something that is not made: a word, or a tool with what it said."""
    options = " ".join(node.options)
    if output:
        said = next((line.strip() for line in output.splitlines() if line.strip()), "nothing")
        message = f"{what} does not make the file system {node.name}: {said}"
    else:
        message = f"the options of {node.name} ask for something that dibble does not write: {what}"
    return OutputError(
        message,
        hint=f'correct "opts" of the node, or --mkfs-options: {options}' if options else f"see {what}(8)",
        where=node.where,
    )
