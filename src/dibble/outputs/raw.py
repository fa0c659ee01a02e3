"""The disk itself: one sparse file, moved where that can be, else copied with its holes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import MAIN_IMAGE, OutputInfo
from dibble.outputs.place import move

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox


class Raw:
    """`N.raw`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="raw", reads="disk", summary="the disk as a sparse file", uses_up_the_disk=True
    )

    def write(
        self,
        source: Source,
        target_file: Path,
        request: Request,
        toolbox: Toolbox,
        events: Events,
        *,
        epoch: int,
        image: str = MAIN_IMAGE,
    ) -> None:
        assert source.disk is not None
        move(source.disk.images[image], target_file)
