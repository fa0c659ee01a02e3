"""vmdk: written by ourselves, stream-optimized; by qemu-img when the user has options for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import MAIN_IMAGE, OutputInfo
from dibble.outputs.qemu_img import convert
from dibble.outputs.vmdk_file import write_vmdk

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox


class Vmdk:
    """`N.vmdk`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="vmdk",
        reads="disk",
        summary="the disk for VMware, compressed (streamOptimized)",
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
        with events.activity("vmdk") as activity:
            if request.qemu_img_options:
                convert(disk, target_file, "vmdk", request, toolbox)
            else:
                write_vmdk(disk, target_file, activity)
