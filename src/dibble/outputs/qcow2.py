"""qcow2: written by ourselves when it is compressed and nothing else is asked for, else by `qemu-img convert`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import OutputInfo
from dibble.outputs.qcow2_file import write_qcow2
from dibble.outputs.qemu_img import convert, options_of

if TYPE_CHECKING:
    from dibble.outputs.base import Writing
    from dibble.recipe.model import Request

_MAX_COROUTINES = 16  # qemu-img(1), convert -m


class Qcow2:
    """`N.qcow2`; zstd unless the user's own options speak of compression."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="qcow2",
        reads="disk",
        summary="the disk for QEMU, compressed",
        depends_on=lambda request: (request.qemu_img_options, str(request.compress)),
    )

    def write(self, writing: Writing) -> None:
        disk = writing.disk_file
        with writing.events.activity("qcow2") as activity:
            if is_ours(writing.request):
                write_qcow2(disk, writing.target_file, activity, ahead=writing.source.ahead.get(writing.image))
            else:
                convert(
                    disk,
                    writing.target_file,
                    "qcow2",
                    writing.request,
                    writing.toolbox,
                    arguments=convert_arguments(writing.request),
                )


def is_ours(request: Request) -> bool:
    """Whether we write the file ourselves, for which clusters can be compressed ahead."""
    return request.compress and not request.qemu_img_options


def convert_arguments(request: Request) -> list[str]:
    """Options of `qemu-img convert`. Not `-W`, with which the order of clusters is another one in every run."""
    coroutines = min(len(os.sched_getaffinity(0)), _MAX_COROUTINES)
    arguments = ["-f", "raw", "-O", "qcow2", "-m", str(coroutines)]
    options = request.qemu_img_options.strip(",")
    if request.compress:
        arguments.append("-c")
        keys = options_of(request)
        # Version 2 of the format (compat=0.10) knows zlib only.
        if "compression_type" not in keys and keys.get("compat") not in ("0.10", "v2"):
            options = ",".join(filter(None, ("compression_type=zstd", options)))
    return [*arguments, "-o", options] if options else arguments
