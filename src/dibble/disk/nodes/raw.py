"""`raw`: a file of the tree, written as it is at a fixed place where firmware looks for it; DIB has no such node."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from dibble.disk import model
from dibble.disk.nodes.base import NodeInfo
from dibble.disk.sizes import parse_size

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry


class RawNode:
    info = NodeInfo("raw", level=1, keys=("file", "offset"), beside=True)

    @staticmethod
    def parse(entry: Entry, context: Context) -> model.Raw:
        base = context.base(entry, model.Image, model.Partition)
        file = entry.needed("file", "/usr/lib/u-boot/BOARD/u-boot.bin")
        if not file.startswith("/") or ".." in PurePosixPath(file).parts:
            entry.refuse(f'has the file "{file}"', "write its path in the image, from / on", "file")
        offset = entry.text("offset")
        at = 0 if offset is None else parse_size(offset, entry.place_of("offset"))
        return model.Raw(entry.name, base.name, file, at, entry.where)
