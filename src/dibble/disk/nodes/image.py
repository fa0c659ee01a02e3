"""`local_loop`: a disk. The name is DIB's; no loop device is used, the disk is a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.disk import model
from dibble.disk.nodes.base import NodeInfo
from dibble.disk.sizes import parse_size

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry

SECTOR_SIZES = (512, 4096)


class Image:
    # `directory` said where DIB keeps the file while it builds; it has no effect here.
    info = NodeInfo("local_loop", level=0, keys=("size", "directory", "block_size"))

    @staticmethod
    def parse(entry: Entry, context: Context) -> model.Image:
        if entry.base:
            entry.refuse("has a base, but a disk stands on nothing", 'remove "base"', "base")
        sector_size = context.defaults.sector_size or entry.number("block_size", 512)
        if sector_size not in SECTOR_SIZES:
            entry.refuse(f"has sectors of {sector_size} bytes", 'write "block_size: 512" or 4096', "block_size")
        text = entry.text("size")
        size = None if text is None else parse_size(text, entry.place_of("size"))
        if size is not None and (size <= 0 or size % sector_size):
            entry.refuse(
                f"has a size of {size} bytes, which is not a multiple of the sector size {sector_size}",
                'write a size such as "4GiB"',
                "size",
            )
        return model.Image(entry.name, size, sector_size, entry.where)
