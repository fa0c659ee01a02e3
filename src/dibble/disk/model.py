"""The values that the disk room works with: what a block-device description says, and where everything lies.

`Graph` is what was asked for (sizes may be open); `Layout` is the same with every offset and size in bytes. Nodes of
levels 0 to 4 (talk: disk space, partitions and volumes, file systems, mounts, fstab) are plain frozen values here.
`where` takes no part in comparing and printing: a comment moved in the file is no other disk.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING, Literal
from uuid import UUID  # noqa: TC003 - dataclass field type

from dibble.errors import Where

if TYPE_CHECKING:
    from dibble.disk.secrets import Secret
    from dibble.disk.volumes.base import Volume


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the request and the resolved distribution give to the description.

    `seed` is the namespace of every derived UUID (uuid5), so that the same recipe gives the same ids. `secrets` are
    what the user gave, by name; None where nothing is going to be written. Nodes hold those that they need.
    """

    seed: UUID
    root_fs_type: str = "ext4"
    root_label: str | None = None
    image_size_bytes: int | None = None
    image_extra_size_bytes: int | None = None
    mkfs_options: str = ""
    journal_mib: int = 64
    max_online_resize: int | None = None
    sector_size: int | None = None
    secrets: Mapping[str, Secret] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Image:
    """Level 0: one disk. `size` in bytes; None in a Graph means computed from the content."""

    name: str
    size: int | None
    sector_size: int = 512
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Partition:
    """Level 1. `size` is bytes, or `percent` of the space that is left; `type` an MBR byte as `0x83`, or a GPT code
    (sgdisk's four hex digits) or GUID. `number` counts as the kernel does (logical ones from 5)."""

    name: str
    number: int
    type: str
    size: int | None
    percent: float | None = None
    bootable: bool = False
    primary: bool = False
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """The partition table of the image `base`; `align` in bytes; partitions in the order given."""

    name: str
    base: str
    label: Literal["mbr", "gpt"]
    partitions: tuple[Partition, ...]
    align: int = 1 << 20
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Raw:
    """Level 1. The `file` of the tree (from `/` on) is written as it is, `offset` bytes into an image or partition."""

    name: str
    base: str
    file: str
    offset: int
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Device:
    """Level 1. What a volume node gives to stand on: a logical volume, an array, what is in a LUKS container.

    `volume` names the node.
    """

    name: str
    volume: str


@dataclass(frozen=True, slots=True)
class Subvolume:
    """A subvolume at the top of a btrfs file system: `name` there, and the `path` of the tree that it holds."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Level 2 on `base` (an image, a partition, or what a volume gives). `options` go to mkfs as they are."""

    name: str
    base: str
    type: str
    label: str
    uuid: UUID
    options: tuple[str, ...] = ()
    where: Where = field(default_factory=Where, compare=False, repr=False)
    subvolumes: tuple[Subvolume, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """Level 3: the file system `base` holds what lies at and below `point`."""

    name: str
    base: str
    point: str
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """Level 4."""

    name: str
    base: str
    options: str = "defaults"
    dump: int = 0
    passno: int = 2
    where: Where = field(default_factory=Where, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Graph:
    """A valid description: every base exists, names, labels and mount points are unique."""

    images: tuple[Image, ...]
    tables: tuple[Table, ...]
    filesystems: tuple[Filesystem, ...]
    """In the order of their devices: by image, then by partition."""
    mounts: tuple[Mount, ...]
    """In the order in which they would be mounted: `/` first, then by path; last swap, whose point is `none`."""
    fstab: tuple[FstabEntry, ...]
    """In the order of the mounts."""
    source: str = field(default="", compare=False, repr=False)
    volumes: tuple[Volume, ...] = ()
    """Each after those that it stands on."""
    raws: tuple[Raw, ...] = ()

    def below(self, device: str) -> tuple[str, ...]:
        """The device and every one that it stands on, down to the images, each once, nearest first."""
        bases: dict[str, tuple[str, ...]] = {
            partition.name: (table.base,) for table in self.tables for partition in table.partitions
        }
        bases.update({given: volume.bases for volume in self.volumes for given in volume.devices})
        found = [device]
        for name in found:
            found += [base for base in bases.get(name, ()) if base not in found]
        return tuple(found)

    def volumes_below(self, device: str) -> tuple[Volume, ...]:
        """The volumes by which a device stands on its partitions and images, lowest first."""
        names = set(self.below(device))
        return tuple(volume for volume in self.volumes if names & set(volume.devices))

    def image_of(self, device: str) -> str:
        """The image that holds a device, the first where several do."""
        names = [image.name for image in self.images]
        return next(name for name in self.below(device) if name in names)


@dataclass(frozen=True, slots=True)
class ContentSize:
    """Bytes of the finished tree by mount point (each file counts for the deepest mount above it).

    `allocated` is what `du` counts (blocks of 4096), `files` the number of inodes.
    """

    allocated: Mapping[str, int]
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a device lies: `offset` and `size` in bytes in the file of `image`.

    `image` is an image's name, or that of a device which lies in pieces, or changed, in those below it: while the disk
    is written, such a device is a file of its own.
    """

    image: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph with all sizes known. `image_sizes` in bytes by image; `extents` of every image, partition and device;
    `sector_sizes`, in bytes, of devices that have larger sectors than those below them."""

    graph: Graph
    image_sizes: Mapping[str, int]
    extents: Mapping[str, Extent]
    seed: UUID
    sector_sizes: Mapping[str, int] = field(default_factory=dict)

    def filesystem_extent(self, filesystem: Filesystem) -> Extent:
        return self.extents[filesystem.base]

    def sector_size_of(self, device: str) -> int:
        """Bytes of a device's sectors: the largest of it and all below it."""
        below = self.graph.below(device)
        sizes = [image.sector_size for image in self.graph.images if image.name in below]
        return max(*sizes, *(self.sector_sizes.get(name, 0) for name in below))


@dataclass(frozen=True, slots=True)
class Disk:
    """Written images: raw sparse files by image name."""

    images: Mapping[str, Path]
    layout: Layout
