"""What every output format is given and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dibble.disk.model import Disk
    from dibble.events import Events
    from dibble.outputs.qcow2_ahead import Ahead
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

MAIN_IMAGE = "image0"
"""The disk that is exported as N.ext; another one, D, as N-D.ext."""


BASE = "@base"
"""The owner of what the phase root.d left."""


@dataclass(frozen=True, slots=True)
class Lower:
    """One directory of the overlay that the tree is. `owner` is the element whose script wrote it, BASE, or empty for
    what dibble did itself."""

    path: Path
    owner: str


@dataclass(frozen=True, slots=True)
class Source:
    """What outputs are made from. `root` is the finished tree; `disk` is None when no format reads it.

    The formats may use up the disk's raw files (`raw` moves them), so that one is written last. `ahead` has, for some
    of the disk's images, what was done for qcow2 while they were written. `work` is a directory that the tools see,
    for files on their way; None where they see every directory. `lowers` are the directories that the tree lies in,
    topmost first, none where that is not known.
    """

    root: Path
    disk: Disk | None
    ahead: Mapping[str, Ahead] = field(default_factory=dict)
    work: Path | None = None
    lowers: tuple[Lower, ...] = ()


def nothing_more(_: Request) -> tuple[str, ...]:
    """For a format that the disk or tree alone decides."""
    return ()


@dataclass(frozen=True, slots=True)
class OutputInfo:
    """`suffix` is that of the file, without a dot; a format that reads the disk is written once for each image, unless
    it `holds_all_disks`.

    `depends_on` gives what of the request decides the file besides the disk or tree: a stored file is only taken for
    the same. `tools` are groups of tools besides `core`. One that is `by_layer` depends on which element made what.
    """

    suffix: str
    reads: Literal["disk", "tree"]
    summary: str
    uses_up_the_disk: bool = False
    depends_on: Callable[[Request], tuple[str, ...]] = nothing_more
    tools: tuple[str, ...] = ()
    holds_all_disks: bool = False
    by_layer: bool = False


@dataclass(frozen=True, slots=True)
class Writing:
    """One file of a format, to be written.

    `target_file` does not exist yet, lies on the file system of the final name and is moved there by the caller. No
    time after `epoch` (seconds since 1970) gets into the file. `image` names the disk, for formats that read disks.
    """

    source: Source
    target_file: Path
    request: Request
    toolbox: Toolbox
    events: Events
    epoch: int
    image: str = MAIN_IMAGE

    @property
    def root(self) -> Path:
        """The finished tree."""
        return self.source.root

    @property
    def disk(self) -> Disk:
        """For formats that read it: it is always there for them."""
        assert self.source.disk is not None
        return self.source.disk

    @property
    def disk_file(self) -> Path:
        """The raw file of the disk to write."""
        return self.disk.images[self.image]

    @property
    def work(self) -> Path:
        """A directory for files on their way, which the tools see."""
        return self.source.work or self.target_file.parent


class Output(Protocol):
    """A format. Made without arguments; keeps nothing from one `write` to the next."""

    info: ClassVar[OutputInfo]

    def write(self, writing: Writing) -> None:
        """Write the whole output to `writing.target_file`. Raises OSError where the file system refuses, ToolFailed
        where a program does.
        """
        ...
