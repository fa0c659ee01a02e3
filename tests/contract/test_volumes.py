"""Volumes are written into files as the kernel's own tools and an independent library read them; none is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from dissect.volume import lvm as dissect_lvm
from dissect.volume import md as dissect_md
from tests.contract.written_disks import MIB, cut, drain, partitions, same_as_root, written
from tests.inside import with_tools

from dibble.disk.system_files import system_files

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

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
