"""`mount`: where a file system hangs in the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.disk import model
from dibble.disk.nodes.base import NodeInfo

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry

SWAP_POINT = "none"


class Mount:
    info = NodeInfo("mount", level=3, keys=("mount_point",))

    @staticmethod
    def parse(entry: Entry, context: Context) -> model.Mount:
        filesystem = context.base(entry, model.Filesystem)
        if filesystem.type == "swap":
            # DIB wants a mount_point here too, and puts this in its place.
            return model.Mount(entry.name, filesystem.name, SWAP_POINT, entry.where)
        text = entry.needed("mount_point", "/")
        point = normal(text)
        if not point:
            hint = 'write it from the root on, such as "/var/log", without "." and ".."'
            entry.refuse(f'has the mount point "{text}", which is not an absolute path', hint, "mount_point")
        for other in context.all(model.Mount):
            if other.point == point:
                entry.refuse(
                    f"has the mount point {point}, which is specified more than once: {other.name} has it too",
                    "give each file system a mount point of its own",
                    "mount_point",
                )
        return model.Mount(entry.name, filesystem.name, point, entry.where)


def normal(text: str) -> str:
    """An absolute path in its one shortest spelling; empty when it is none, or could lead elsewhere."""
    parts = [part for part in text.split("/") if part]
    if not text.startswith("/") or "." in parts or ".." in parts or not text.isprintable():
        return ""
    return "/" + "/".join(parts)
