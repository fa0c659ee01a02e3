"""The finished tree as a read-only, compressed file system: squashfs and erofs, as they are written into disks too."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from dibble.disk.filesystems.readonly import write_erofs, write_squashfs
from dibble.outputs.base import OutputInfo
from dibble.outputs.place import move
from dibble.tree.inodes import EMPTIED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.events import Events
    from dibble.outputs.base import Writing
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

_SEED = uuid.UUID("b9a7a3e4-52c0-5c0f-8d0b-3a1f0c6b7d52")
"""The namespace of the UUIDs of such file systems (RFC 9562, 5.5); an arbitrary constant."""


_SHOWN = 3
_NOTHING: Mapping[bytes, Path] = MappingProxyType({})


class Squashfs:
    """`N.squash`, as diskimage-builder calls it.

    Access control lists are left out, with a warning: systemd gives one to its journal's directory in most trees, and
    again at each start.
    """

    info: ClassVar[OutputInfo] = OutputInfo(suffix="squash", reads="tree", summary="the tree as squashfs (zstd)")

    def write(self, writing: Writing) -> None:
        with writing.events.activity("squashfs"), tempfile.TemporaryDirectory(dir=writing.work) as work:
            made = Path(work) / "tree"
            squashfs_of(writing.root, made, writing.toolbox, writing.events, epoch=writing.epoch)
            move(made, writing.target_file)


def squashfs_of(
    root: Path,
    file: Path,
    toolbox: Toolbox,
    events: Events,
    *,
    epoch: int,
    replaced: Mapping[bytes, Path] = _NOTHING,
) -> None:
    """Write the tree into `file`, which the tools see, and tell which access control lists are left out. `replaced` is
    as for `write_squashfs`."""
    lists: dict[str, None] = {}
    write_squashfs(root, file, toolbox, epoch=epoch, emptied=EMPTIED, left_out=lists.setdefault, replaced=replaced)
    if lists:
        names = [name.removeprefix(f"{root}/") for name in lists]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        shown = ", ".join(names[:_SHOWN])
        events.note(f"squashfs has no access control lists: those of {shown}{more} are left out", "warning")


class Erofs:
    """`N.erofs`. Its UUID stands for the elements and the architecture."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="erofs",
        reads="tree",
        summary="the tree as erofs (zstd)",
        tools=("filesystems",),
        depends_on=lambda request: (_name(request),),
    )
    # Unlike the default of one block of 4 KiB, pieces of 64 KiB gain from their compression.
    _OPTIONS = ("-zzstd,level=9", "-C65536")

    def write(self, writing: Writing) -> None:
        with writing.events.activity("erofs"), tempfile.TemporaryDirectory(dir=writing.work) as work:
            made = Path(work) / "tree"
            own = str(uuid.uuid5(_SEED, _name(writing.request)))
            write_erofs(
                writing.root, made, writing.toolbox,
                label="", uuid=own, epoch=writing.epoch, options=self._OPTIONS, emptied=EMPTIED,
            )  # fmt: skip
            move(made, writing.target_file)


def _name(request: Request) -> str:
    return " ".join((request.arch, *request.elements))
