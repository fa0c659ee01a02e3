"""vdi: written by ourselves, or by qemu-img when the user has options for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import MAIN_IMAGE, OutputInfo
from dibble.outputs.qemu_img import convert
from dibble.outputs.vdi_file import write_vdi

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox


class Vdi:
    """`N.vdi`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="vdi",
        reads="disk",
        summary="the disk for VirtualBox, growing",
        depends_on=lambda request: (request.qemu_img_options,),
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
        disk = source.disk.images[image]
        with events.activity("vdi") as activity:
            if request.qemu_img_options:
                convert(disk, target_file, "vdi", request, toolbox)
            else:
                write_vdi(disk, target_file, source.disk.layout.seed, activity)
