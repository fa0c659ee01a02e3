"""What a file system gives: its limits, the space it needs, and itself, written into an extent of an image file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING, Protocol

from dibble.disk.model import Extent, Filesystem  # noqa: TC001 - dataclass field types
from dibble.events import Events  # noqa: TC001 - dataclass field type
from dibble.sandbox.toolbox import Toolbox  # noqa: TC001 - dataclass field type

if TYPE_CHECKING:
    from dibble.disk.model import Defaults


@dataclass(frozen=True, slots=True)
class FilesystemInfo:
    """`label_length` in bytes; `holds_files` is False for swap."""

    name: str
    label_length: int
    holds_files: bool = True
    upper_case_label: bool = False


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
