"""The disk itself: one sparse file, moved where that can be, else copied with its holes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import OutputInfo
from dibble.outputs.place import move

if TYPE_CHECKING:
    from dibble.outputs.base import Writing


class Raw:
    """`N.raw`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="raw", reads="disk", summary="the disk as a sparse file", uses_up_the_disk=True
    )

    def write(self, writing: Writing) -> None:
        move(writing.disk_file, writing.target_file)
