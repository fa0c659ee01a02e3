"""Volumes are written into files as the kernel's own tools and an independent library read them; none is mounted."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from dissect.volume import lvm as dissect_lvm
from dissect.volume import md as dissect_md
from tests.inside import with_tools

from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults, Disk
from dibble.disk.system_files import system_files
from dibble.disk.volumes.base import Region
from dibble.disk.volumes.sparse import copy
from dibble.disk.write import write_disk
from dibble.events import Events

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

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


def written(toolbox: Toolbox, directory: Path, text: str, content_mib: int = 20, number: int = 0) -> Disk:
    """A disk made of a description."""
    graph = parse(text, source="disk.yaml", defaults=DEFAULTS)
    content = ContentSize({"/": content_mib * MIB, "/home": MIB}, {"/": 100, "/home": 10})
    layout = layout_of(graph, content, DEFAULTS)
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


LVM = (
    partitions(a="30MiB", b="60MiB", c="100%")
    + """\
- lvm:
    name: lvm
    pvs: [{name: pv1, base: a}, {name: pv2, base: b}, {name: pv3, base: c}]
    vgs: [{name: vg, base: [pv1, pv2]}, {name: other, base: pv3, options: [-s, 1m]}]
    lvs:
      - name: root
        base: vg
        size: 48MiB
        options: [-i, 2, -I, 16k]
        mkfs: {name: fs, type: ext4, mount: {mount_point: /}}
      - {name: home, base: vg, extents: 100%FREE, mkfs: {type: ext4, mount: {mount_point: /home}}}
      - {name: swap, base: other, extents: 60%VG, mkfs: {type: swap, mount: {}}}
"""
)


def unstripe(segment: Any, parts: dict[str, Path], target: Path, size: int) -> None:
    """Read a striped segment by its description; dissect.volume 3.18 itself takes stripes one after the other."""
    assert segment.stripe_size * 512 == 16 << 10
    areas = [({"pv0": "a", "pv1": "b"}[pv], MIB + extent * 4 * MIB) for pv, extent in segment.stripes]
    with parts["a"].open("rb") as a, parts["b"].open("rb") as b, target.open("wb") as out:
        files = {"a": a, "b": b}
        for number in range(size // (16 << 10)):
            part, start = areas[number % len(areas)]
            files[part].seek(start + number // len(areas) * (16 << 10))
            out.write(files[part].read(16 << 10))


def test_lvm_and_an_independent_reader_find_the_volumes_that_were_described(test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        disk = written(toolbox, directory, LVM)
        parts = {name: cut(disk, name) for name in "abc"}
        for path in parts.values():
            for what in ("headers", "metadata"):
                said = toolbox.run(["lvm", "pvck", "--dump", what, toolbox.path(path)]).output
                assert "CHECK" not in said, said
                assert "seqno 1" in said
        with parts["a"].open("rb") as a, parts["b"].open("rb") as b, parts["c"].open("rb") as c:
            group = dissect_lvm.LVM2([a, b]).vg
            volumes = {lv.name: lv for lv in (*group.lv, *dissect_lvm.LVM2([c]).vg.lv)}
            sizes = {name: disk.layout.extents[name].size for name in ("root", "home", "swap")}
            assert set(volumes) == set(sizes)
            assert len(volumes["home"].segments) == 2, "the rest of either partition"
            for name in ("home", "swap"):
                drain(volumes[name].open(), directory / f"{name}-volume", sizes[name])
            (striped,) = volumes["root"].segments
        unstripe(striped, parts, directory / "root-volume", sizes["root"])
        assert same_as_root(toolbox, directory / "root", directory / "root-volume")
        home = toolbox.path(directory / "home-volume")
        toolbox.run(["e2fsck", "-f", "-n", home])
        assert "here" in toolbox.run(["debugfs", "-R", "cat /note", home]).output
        assert (directory / "swap-volume").read_bytes()[4086:4096] == b"SWAPSPACE2"

    with_tools(test_cache, work, "volumes")


RAID = (
    partitions(a="40MiB", b="40MiB", c="42MiB", d="60MiB")
    + """- raid: {name: array, base: [MEMBERS], LEVEL, mkfs: {name: fs, type: ext4, mount: {mount_point: /}}}
"""
)


@pytest.mark.parametrize(
    ("members", "level", "mib", "name"),
    [
        ("a, b", "level: 1", 39, "raid1"),
        ("a, b, c, d", "level: 0, chunk: 64KiB", 4 * 39, "raid0"),
        ("a, b, c, d", "level: 10, chunk: 16KiB", 2 * 39, "raid10"),
        ("a, b, c", "level: raid10", 58.5, "raid10"),
    ],
)
def test_mdadm_and_an_independent_reader_find_the_array(
    test_cache: Path, members: str, level: str, mib: float, name: str
) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        disk = written(toolbox, directory, RAID.replace("MEMBERS", members).replace("LEVEL", level))
        names = members.split(", ")
        size = disk.layout.extents["array"].size
        assert size == mib * MIB
        parts = [cut(disk, member) for member in names]
        (line,) = system_files(disk.layout.graph).files[0].lines
        for number, path in enumerate(parts):
            said = toolbox.run(["mdadm", "--examine", toolbox.path(path)]).output
            facts = dict(line.strip().split(" : ", 1) for line in said.splitlines() if " : " in line)
            assert facts["Raid Level"] == name
            assert facts["State"] == "clean"
            assert facts["Version"] == "1.2"
            assert facts["Checksum"].endswith("correct")
            assert facts["Device Role"] == f"Active device {number}"
            assert facts["Array State"].startswith("A" * len(names) + " ")
            told = toolbox.run(["mdadm", "--examine", "--brief", toolbox.path(path)]).output
            assert set(line.split()) <= set(told.split()), "mdadm.conf names this very array"
            if name != "raid0":
                assert int(facts["Array Size"].split()[0]) * 1024 == size
        files = [path.open("rb") for path in parts]
        try:
            (configuration,) = dissect_md.MD(list(files)).configurations
            (array,) = configuration.virtual_disks
            assert array.name == "array"
            drain(array.open(), directory / "array", min(size, array.size))
        finally:
            for file in files:
                file.close()
        if array.size >= size:  # of level 10 the library reads only as much as one member holds
            assert same_as_root(toolbox, directory / "root", directory / "array")

    with_tools(test_cache, work, "volumes")
