"""A file system that a program makes in a file of its own, and that is then put at its place in an image."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from dibble.disk.filesystems.base import too_small
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Filesystem


@contextlib.contextmanager
def made_apart(node: Filesystem, place: Place, size: int = 0) -> Iterator[Path]:
    """A new file of `size` bytes beside the image, whose content is put at its place in the end.

    Raises OutputError when it has become larger than the place.
    """
    from dibble.tree.inodes import stretches

    path = place.image.with_name(f"{place.image.name}.{node.name}.apart")
    try:
        with path.open("wb") as file:
            file.truncate(size)
        yield path
        made = path.stat().st_size
        if made > place.extent.size:
            raise too_small(node, place, made)
        target = os.open(place.image, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for offset, data in stretches(os.fsencode(path), made):
                write_at(target, data, place.extent.offset + offset)
        finally:
            os.close(target)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def content_or_nothing(content: Path | None, beside: Path) -> Iterator[Path]:
    """The tree to write or, for a file system that no mount point fills, an empty directory named after `beside`."""
    if content is not None:
        yield content
        return
    nothing = beside.with_name(f"{beside.name}.nothing")
    nothing.mkdir(mode=0o755)
    try:
        yield nothing
    finally:
        nothing.rmdir()
