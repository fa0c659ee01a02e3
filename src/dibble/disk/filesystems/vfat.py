"""FAT, made by mkfs.fat(8) and filled by mtools(1) inside the image file; for EFI system partitions above all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from dibble.disk.filesystems.base import FilesystemInfo
from dibble.disk.sizes import human
from dibble.errors import OutputError, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem


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
        argv += ["-S", str(place.sector_size), f"--offset={place.extent.offset // place.sector_size}", *node.options]
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
