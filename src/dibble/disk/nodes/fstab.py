"""`fstab`: what the image's /etc/fstab says of a mount."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.disk import model
from dibble.disk.nodes.base import NodeInfo
from dibble.disk.nodes.mount import SWAP_POINT

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry


class Fstab:
    info = NodeInfo("fstab", level=4, keys=("options", "dump-freq", "fsck-passno"))

    @staticmethod
    def parse(entry: Entry, context: Context) -> model.FstabEntry:
        mount = context.base(entry, model.Mount)
        if mount.point == SWAP_POINT:
            return model.FstabEntry(entry.name, mount.name, "sw", 0, 0, entry.where)
        filesystem = next(one for one in context.all(model.Filesystem) if one.name == mount.base)
        if not filesystem.label:
            entry.refuse(
                f"stands on {filesystem.name}, but {filesystem.type} has no label to find it by",
                "remove it, and let an element write a line that finds the partition, such as by its PARTUUID",
            )
        options = entry.text("options") or "defaults"
        if len(options.split()) != 1:
            entry.refuse(f'has the options "{options}" with blanks', "put commas between them, no blanks", "options")
        return model.FstabEntry(
            entry.name,
            mount.name,
            options.strip(),
            entry.number("dump-freq", 0),
            entry.number("fsck-passno", 2),
            entry.where,
        )
