"""All outputs of one image, in the order in which they can share one disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dibble.errors import OutputError, ToolFailed
from dibble.events import ArtifactWritten
from dibble.outputs.base import MAIN_IMAGE
from dibble.outputs.place import placing
from dibble.registry import load
from dibble.store.layers import copy_sparse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.events import Events
    from dibble.outputs.base import Output, Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox


def write_outputs(source: Source, request: Request, toolbox: Toolbox, events: Events, *, epoch: int) -> list[Path]:
    """Write every requested format and return the files, without their checksum files, as they were written.

    Formats of the tree come first, then those of the disk as they were given, and what uses the disk up is last. The
    disk image0 gives N.SUFFIX, another one, D, N-D.SUFFIX. Raises OutputError or ToolFailed; what was complete stays.
    """
    formats: dict[str, Output] = {name: load("outputs", name)() for name in request.outputs}
    in_order = sorted(formats, key=lambda name: _turn(formats[name]))
    files = []
    for name in in_order:
        output = formats[name]
        for image in _images(source, output):
            more = "" if image == _main(source) else f"-{image}"
            file = f"{request.name}{more}.{output.info.suffix}"
            began = time.monotonic()
            with placing(file, request, events) as fresh:
                try:
                    output.write(source, fresh, request, toolbox, events, epoch=epoch, image=image)
                except ToolFailed as error:
                    if "No space left on device" not in error.output:
                        raise
                    raise _no_room(file) from error
            files.append(_written(file, name, request, events, began))
    return files


def place_files(files: Mapping[str, Path], request: Request, events: Events) -> list[Path]:
    """Put copies of stored files at their final names (name relative to `request.cwd` → stored file); in that order.

    Never hard links: what the user does to an image must not reach the store.
    """
    placed = []
    for name, stored in files.items():
        began = time.monotonic()
        with placing(name, request, events) as fresh:
            copy_sparse(stored, fresh)
        placed.append(_written(name, stored.suffix.removeprefix("."), request, events, began))
    return placed


def _turn(output: Output) -> int:
    if output.info.reads == "tree":
        return 0
    return 2 if output.info.uses_up_the_disk else 1


def _main(source: Source) -> str:
    images = list(source.disk.images) if source.disk else []
    return MAIN_IMAGE if MAIN_IMAGE in images or not images else images[0]


def _images(source: Source, output: Output) -> list[str]:
    """The disks to write, the main one first; for a format of the tree, one name that it does not look at."""
    if output.info.reads == "tree":
        return [_main(source)]
    assert source.disk is not None
    main = _main(source)
    return [main, *(name for name in source.disk.images if name != main)]


def _written(file: str, name: str, request: Request, events: Events, began: float) -> Path:
    final = request.cwd / file
    status = final.stat()
    events.send(
        ArtifactWritten(
            path=file,
            format=name,
            size=status.st_size,
            allocated=status.st_blocks * 512,
            seconds=time.monotonic() - began,
        )
    )
    return final


def _no_room(file: str) -> OutputError:
    return OutputError(
        f"no room to convert the disk to {file}",
        hint="free space in the cache, or give another directory with --image-cache or the variable DIB_IMAGE_CACHE",
    )
