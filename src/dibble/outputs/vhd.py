"""vhd: of fixed size, as Azure wants it; growing with `--qemu-img-options subformat=dynamic`.

Both are written by ourselves; qemu-img does it when the user has other options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import MAIN_IMAGE, OutputInfo
from dibble.outputs.qemu_img import convert, options_of
from dibble.outputs.vhd_file import write_dynamic, write_fixed

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox


class Vhd:
    """`N.vhd`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="vhd",
        reads="disk",
        summary="the disk for Azure and older Hyper-V, of fixed size",
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
        with events.activity("vhd") as activity:
            options = options_of(request)
            kind = options.get("subformat", "fixed")
            if options.keys() - {"subformat", "force_size"} or kind not in ("fixed", "dynamic"):
                convert(disk, target_file, "vpc", request, toolbox)
            else:
                write = write_fixed if kind == "fixed" else write_dynamic
                write(disk, target_file, source.disk.layout.seed, epoch=epoch, activity=activity)
