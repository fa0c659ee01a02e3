"""The values that the disk room works with: what a block-device description says, and where everything lies.

`Graph` is what was asked for (sizes may be open); `Layout` is the same with every offset and size in bytes. Nodes of
levels 0 to 4 (talk: disk space, partitions and volumes, file systems, mounts, fstab) are plain frozen values here.
`where` takes no part in comparing and printing: a comment moved in the file is no other disk.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import Literal
from uuid import UUID  # noqa: TC003 - dataclass field type

from dibble.errors import Where


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the request and the resolved distribution give to the description.

    `seed` is the namespace of every derived UUID (uuid5), so that the same recipe gives the same ids.
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
class Filesystem:
    """Level 2 on the device `base` (an image or partition). `options` go to mkfs as they are."""

    name: str
    base: str
    type: str
    label: str
    uuid: UUID
    options: tuple[str, ...] = ()
    where: Where = field(default_factory=Where, compare=False, repr=False)


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


@dataclass(frozen=True, slots=True)
class ContentSize:
    """Bytes of the finished tree by mount point (each file counts for the deepest mount above it).

    `allocated` is what `du` counts (blocks of 4096), `files` the number of inodes.
    """

    allocated: Mapping[str, int]
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a device lies: `offset` and `size` in bytes in the image file `image`."""

    image: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph with all sizes known. `image_sizes` in bytes by image; `extents` of every image and partition."""

    graph: Graph
    image_sizes: Mapping[str, int]
    extents: Mapping[str, Extent]
    seed: UUID

    def filesystem_extent(self, filesystem: Filesystem) -> Extent:
        return self.extents[filesystem.base]


@dataclass(frozen=True, slots=True)
class Disk:
    """Written images: raw sparse files by image name."""

    images: Mapping[str, Path]
    layout: Layout
