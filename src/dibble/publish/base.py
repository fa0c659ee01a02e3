"""What a place that images are published to is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from dibble.errors import DibbleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.events import Events
    from dibble.publish.progress import Progress


class PublishError(DibbleError):
    """A place does not take the image, or cannot be reached. What was sent so far counts when it is tried again."""


@dataclass(frozen=True, slots=True)
class Properties:
    """What a cloud wants to know of an image. Empty where nothing tells."""

    arch: str
    """As Debian calls it: amd64, arm64 …"""
    firmware: Literal["bios", "uefi", "both", ""]
    format: str
    """The name of the output (registry.py, `outputs`); raw for what has no mark of its own."""
    virtual_size: int
    """Bytes of the disk that a guest sees; of what is no disk, of the file."""
    disk_bus: str = ""
    """virtio, virtio-scsi, pvscsi, nvme or sata, as in an environment's `machine`."""
    network: str = ""
    """virtio, vmxnet3 or e1000e."""
    distro: str = ""
    release: str = ""
    min_memory_mib: int = 0

    @property
    def min_disk_gib(self) -> int:
        """The smallest disk that the image fits on, in whole GiB."""
        return max(1, -(-self.virtual_size // (1 << 30)))


@dataclass(frozen=True, slots=True)
class Publication:
    """One image on its way. `place` is what stands behind `SCHEME://` in the target, with its own rules."""

    image: Path
    name: str
    place: str
    properties: Properties
    progress: Progress
    events: Events
    environ: Mapping[str, str]
    cache: Path
    """Where dibble's store lies."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Properties that the user gave, in the words of the place; they count more than derived ones."""
    force: bool = False
    """Whether a place that `overwrites` may do so to what it holds."""


@dataclass(frozen=True, slots=True)
class Published:
    """`where` names the image for the next command; `ids` by kind (`image`, `snapshot` …)."""

    where: str
    ids: Mapping[str, str]


class Publisher(Protocol):
    """A kind of place. Made without arguments."""

    summary: ClassVar[str]
    place: ClassVar[str]
    """What stands behind `SCHEME://`, for the help; `[…]` is optional."""

    def check(self, publication: Publication) -> None:
        """Raises UsageError for an image or a place that cannot be meant. Reads no network."""

    def publish(self, publication: Publication) -> Published:
        """Send the image, going on where an earlier try of the same image to the same place ended. Raises
        PublishError; no message and no event holds a password, key or token."""
        ...
