"""What a volume gives: devices made of other devices, by LVM, RAID, encryption and the like, written into files.

A volume node's value (level 1) is itself what lays out and writes. Sizes go up: bases have bytes, `place` says what
the devices on them have. Wishes go down: file systems need bytes, `needed` says what the bases must have for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING, NoReturn, Protocol

from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.errors import Where
    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Placed:
    """A device of `size` bytes. `base` and `offset` say where it lies, as it is and in one piece, in a device below;
    without a base, `write` brings its content there. `sector_size` in bytes, where it is larger than that of its bases.
    """

    size: int
    base: str = ""
    offset: int = 0
    sector_size: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """`size` bytes from `offset` on of a sparse file."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class VolumePlace:
    """What a volume is written with: the regions of its bases, and of its devices, which are complete.

    `work` is a directory that the tools see, for files that are removed again. `root_hashes`, by name of the device,
    are what volumes have found: who knows one knows all that is in the device.
    """

    regions: Mapping[str, Region]
    work: Path
    toolbox: Toolbox
    events: Events
    epoch: int
    root_hashes: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dracut:
    """What dracut(8) has to put into an initramfs that is not for one host alone, where `/` or `/usr` is on a volume.

    `module` is dracut's name for it, `words` are (device, word of dracut.cmdline(7) by which the device is found), and
    `settings` further lines of dracut.conf(5).
    """

    module: str
    words: tuple[tuple[str, str], ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """What the running system needs to find a volume's devices: `program`, which `element` puts into an image, and a
    line for a file (`dibble.disk.system_files`), or neither.

    `files` are its absolute paths in distributions: the first whose directory an image has, else the last. `first` is
    what it has to say besides, if packages have left none. `early_line`, if any, stands in place of `line` where the
    initramfs must find the devices, as `/` or `/usr` is on them; `dracut` is for that case too.
    """

    program: str
    element: str
    files: tuple[str, ...] = ()
    line: str = ""
    first: str = ""
    early_line: str = ""
    dracut: Dracut | None = None


class Volume(Protocol):
    """The value of a volume node: a frozen value whose repr says all that its bytes depend on."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """What it is called in a plan, such as `LVM` or `RAID 1`."""
        ...

    @property
    def where(self) -> Where: ...

    @property
    def bases(self) -> tuple[str, ...]:
        """The devices that it stands on."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it gives."""
        ...

    @property
    def grub_modules(self) -> tuple[str, ...] | None:
        """What GRUB needs to read its devices; None where it cannot."""
        ...

    @property
    def system(self) -> System | None:
        """None when a kernel alone finds its devices."""
        ...

    def needed(self, wanted: Mapping[str, int], fixed: Mapping[str, int]) -> Mapping[str, int]:
        """Bytes that each base must have, so that each device has at least those `wanted`.

        `fixed` are bases whose size is settled. Raises DiskLayoutError when no size would do.
        """
        ...

    def place(self, sizes: Mapping[str, int]) -> Mapping[str, Placed]:
        """Every device, on bases of `sizes` bytes. Raises DiskLayoutError when they do not fit."""
        ...

    def write(self, place: VolumePlace) -> None:
        """Write into the bases. Called when everything on the devices has been written."""
        ...

    def path_of(self, device: str) -> str:
        """Under what name the running system has a device."""
        ...


@dataclass(frozen=True, slots=True)
class Spot:
    """The name of a part of a volume, and where it stands in the description."""

    what: str
    where: Where = field(compare=False, repr=False)

    def refuse(self, reason: str, hint: str) -> NoReturn:
        raise DiskLayoutError(f"{self.what} {reason}", hint=hint, where=self.where)
