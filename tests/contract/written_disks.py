"""Disks with volumes, written from a description as a build writes them, and cut into files for programs to read."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults, Disk
from dibble.disk.volumes.base import Region
from dibble.disk.volumes.sparse import copy
from dibble.disk.write import write_disk
from dibble.events import Events

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

MIB = 1 << 20
DEFAULTS = Defaults(UUID("99999999-8888-7777-6666-555555555555"), journal_mib=4)
EPOCH = 1_700_000_000
GPT = """\
- local_loop:
    name: image0
    partitioning:
      label: gpt
      partitions:
"""


def partitions(**sizes: str) -> str:
    return GPT + "".join(f"        - {{name: {name}, size: {size}}}\n" for name, size in sizes.items())


def tree(directory: Path) -> Path:
    """A root with enough in it to go over many stripes, and a hole that stays one."""
    root = directory / "root"
    (root / "home").mkdir(parents=True)
    (root / "data").write_bytes(b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(200_000)))
    with (root / "sparse").open("wb") as file:
        file.truncate(8 * MIB)
        file.write(b"end")
    (root / "home" / "note").write_text("here\n")
    for path in (*root.rglob("*"), root):
        os.utime(path, (EPOCH, EPOCH))
    return root


def written(toolbox: Toolbox, directory: Path, text: str, number: int = 0, defaults: Defaults = DEFAULTS) -> Disk:
    """A disk made of a description."""
    graph = parse(text, source="disk.yaml", defaults=defaults)
    content = ContentSize({"/": 20 * MIB, "/home": MIB}, {"/": 100, "/home": 10})
    layout = layout_of(graph, content, defaults)
    root = directory / "root"
    if not root.exists():
        tree(directory)
    place = directory / f"disk-{number}"
    place.mkdir()
    disk = write_disk(layout, root, place, toolbox, Events(), epoch=EPOCH)
    assert {path.name for path in place.iterdir()} == {path.name for path in disk.images.values()}, "nothing is left"
    return disk


def cut(disk: Disk, name: str) -> Path:
    """A partition as a file of its own, sparse, for programs that know no offset."""
    extent = disk.layout.extents[name]
    image = disk.images[extent.image]
    alone = image.with_name(f"{name}.part")
    with alone.open("wb") as file:
        file.truncate(extent.size)
    copy(Region(image, extent.offset, extent.size), Region(alone, 0, extent.size))
    return alone


def same_as_root(toolbox: Toolbox, root: Path, filesystem: Path) -> bool:
    """Whether an ext4 in a file is sound and holds the root's files."""
    toolbox.run(["e2fsck", "-f", "-n", toolbox.path(filesystem)])
    for name in ("data", "sparse"):
        out = filesystem.with_suffix(f".{name}")
        toolbox.run(["debugfs", "-R", f"dump /{name} {toolbox.path(out)}", toolbox.path(filesystem)])
        if out.read_bytes() != (root / name).read_bytes():
            return False
    return True


def drain(stream: Any, path: Path, size: int) -> Path:  # dissect's streams are untyped
    """Write what a library reads of a volume into a sparse file."""
    stream.seek(0)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            data = stream.read(min(MIB, size - at))
            assert data
            if data.strip(b"\0"):
                file.seek(at)
                file.write(data)
        file.truncate(size)
    return path
