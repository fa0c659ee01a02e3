"""FAT, made by mkfs.fat(8) and filled by mtools(1) inside the image file; for EFI system partitions above all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from dibble.disk.filesystems.base import FilesystemInfo
from dibble.disk.sizes import human
from dibble.errors import OutputError, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem

_MIB = 1 << 20
_FAT32_SIZE = 512 * _MIB
"""From here on FAT has 32 bits unless asked for otherwise; FAT16 is made for less (Microsoft's FAT specification)."""

_FAT16_SECTORS = 9 * _MIB // 512
"""From here on FAT has 16 bits: mkfs.fat makes clusters of at least 4 sectors, and FAT16 has at least 4087 of them."""

_FAT32_CLUSTERS = ((260 * _MIB, 512), (8192 * _MIB, 4096), (16384 * _MIB, 8192), (32768 * _MIB, 16384))
"""Sizes and the clusters, in bytes, up to there: the table for FAT32 in Microsoft's FAT specification."""

_LARGEST_CLUSTER = 32768


class Vfat:
    info = FilesystemInfo("vfat", label_length=11, upper_case_label=True)

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """Content in clusters, two FATs, and room for directories."""
        return int(allocated * 1.05) + (1 << 20)

    def write(self, node: Filesystem, place: Place) -> None:
        toolbox = place.toolbox
        image = toolbox.path(place.image)
        # 32 bits of the id; `--invariant` keeps time and chance out (mkfs.fat(8)).
        argv = ["mkfs.fat", "--invariant", "-i", f"{node.uuid.int >> 96:08x}", "-n", node.label]
        argv += ["-S", str(place.sector_size), f"--offset={place.extent.offset // place.sector_size}"]
        argv += [*geometry(place.extent.size, place.sector_size, node.options), *node.options]
        toolbox.run([*argv, image, str(place.extent.size // 1024)])
        if place.content is None:
            return
        drive = f"{image}@@{place.extent.offset}"
        # Without the check mtools wants a geometry that no modern disk has (mtools(1), MTOOLS_SKIP_CHECK).
        environment = {"SOURCE_DATE_EPOCH": str(place.epoch), "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
        try:
            for folder, files in _folders(place.content):
                goal = "::/" + str(folder.relative_to(place.content)).removeprefix(".")
                if folder != place.content:
                    toolbox.run(["mmd", "-i", drive, goal], env=environment)
                if files:
                    names = [toolbox.path(path) for path in files]
                    toolbox.run(["mcopy", "-m", "-Q", "-i", drive, *names, goal.rstrip("/") + "/"], env=environment)
        except ToolFailed as error:
            if "full" in error.output.lower():
                raise OutputError(
                    f"the file system {node.name} of {human(place.extent.size)} is too small for its content",
                    hint="give its partition a larger size",
                    where=node.where,
                ) from error
            raise


def geometry(size: int, sector_size: int, options: Sequence[str]) -> list[str]:
    """Options of mkfs.fat for a file system of `size` bytes: what `options` leave open of FAT's bits and the clusters.

    Left to itself mkfs.fat takes both from the size of the whole disk, behind whose `--offset` there is less.
    """
    asked = _value("-F", options)
    chosen = []
    if asked is None:
        few = 12 if size // sector_size < _FAT16_SECTORS else 16
        asked = "32" if size >= _FAT32_SIZE else str(few)
        chosen = ["-F", asked]
    if asked == "32" and _value("-s", options) is None:
        cluster = next((cluster for limit, cluster in _FAT32_CLUSTERS if size <= limit), _LARGEST_CLUSTER)
        chosen += ["-s", str(max(1, cluster // sector_size))]
    return chosen


def _value(option: str, options: Sequence[str]) -> str | None:
    """What stands behind the last such option, in the same word or the next."""
    found = None
    for number, word in enumerate(options):
        if word.startswith(option):
            found = word.removeprefix(option) or next(iter(options[number + 1 :]), None)
    return found


def _folders(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each directory, parents first, with its files, all in byte order. FAT has neither links nor devices."""
    files, folders = [], []
    for path in sorted(top.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            folders.append(path)
        elif stat.S_ISREG(mode):
            files.append(path)
        else:
            raise OutputError(
                f"{path} is neither a file nor a directory, which a vfat file system cannot hold",
                hint="let the element put a plain file there",
            )
    yield top, files
    for folder in folders:
        yield from _folders(folder)
