"""A FAT file system, such as that of UEFI, read by mcopy(1)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dibble.errors import ReadError
from dibble.read.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

_MODE = 0o755  # what Linux gives to all of a FAT file system that is mounted without options


def entries(image: Path, offset: int, toolbox: Toolbox, scratch: Path) -> Iterator[Entry]:
    """Every entry of the file system at `offset` (bytes), whose contents are put into the empty directory `scratch`.

    All of it is root's. Raises ReadError.
    """
    argv = ["mcopy", "-s", "-p", "-m", "-n", "-i", f"{toolbox.path(image)}@@{offset}", "::*", toolbox.path(scratch)]
    done = toolbox.run(argv, check=False)
    if done.status and 'File "::*" not found' not in done.output:
        raise ReadError(f"the FAT file system cannot be read: {done.output.strip()}")
    yield Entry("", stat.S_IFDIR | _MODE, 0, 0, 0)
    number = 0
    for folder, folders, files in os.walk(scratch):
        folders.sort()
        inside = os.path.relpath(folder, scratch).removeprefix(".").lstrip("/")
        for name in [*folders, *sorted(files)]:
            number += 1
            file = scratch / inside / name
            status = file.lstat()
            kind = stat.S_IFDIR if name in folders else stat.S_IFREG
            path = f"{inside}/{name}".lstrip("/")
            content = file if kind == stat.S_IFREG and status.st_size else None
            yield Entry(path, kind | _MODE, 0, 0, number, mtime=int(status.st_mtime), content=content)
