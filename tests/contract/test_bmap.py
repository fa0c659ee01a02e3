"""A block map: bmaptool takes it and copies the disk by it, and what it leaves out may be anything."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.contract.written_disks import MIB, cut, partitions, same_as_root, tree, written
from tests.inside import with_tools
from tests.unit.output_values import EPOCH, request

from dibble.disk.filesystems.ext_free import free_ranges
from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.registry import load

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.disk.model import Disk
    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

DISK = (
    partitions(ESP="16MiB", swap="8MiB", read="8MiB", compact="8MiB", root="64MiB").replace(
        "name: ESP", "name: ESP, type: EF00"
    )
    + """\
- mkfs: {base: ESP, type: vfat, label: ESP, mount: {mount_point: /boot/efi, fstab: {}}}
- mkfs: {base: swap, type: swap, mount: {mount_point: swap, fstab: {}}}
- mkfs: {base: read, type: squashfs, mount: {mount_point: /usr/read}}
- mkfs: {base: compact, type: erofs, label: compact, mount: {mount_point: /usr/compact}}
- mkfs: {base: root, type: ext4, label: root, mount: {mount_point: /, fstab: {}}}
"""
)
GARBAGE = b"\xa5" * MIB


def bmap_of(disk: Disk, toolbox: Toolbox, directory: Path) -> Path:
    target = directory / "N.bmap"
    source = Source(directory, disk)
    load("outputs", "bmap")().write(Writing(source, target, request(directory), toolbox, Events(), EPOCH))
    return target


def test_a_device_full_of_anything_gets_sound_file_systems_by_the_map(test_cache: Path, tmp_path: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> tuple[bool, list[bytes], bool]:
        root = tree(directory)
        for name in ("boot/efi", "usr/read", "usr/compact"):
            (root / name).mkdir(parents=True)
            (root / name / "zeros").write_bytes(bytes(MIB))
            (root / name / "text").write_text(name)
        disk = written(toolbox, directory, DISK)
        raw = disk.images["image0"]
        bmap = bmap_of(disk, toolbox, directory)
        text = bmap.read_text()
        filled = directory / "filled.raw"
        shutil.copyfile(raw, filled)  # without holes: the map is the same
        again = bmap_of(type(disk)({"image0": filled}, disk.layout), toolbox, directory).read_text() == text
        for path, name in ((raw, "N.raw"), (bmap, "N.bmap")):
            shutil.copyfile(path, tmp_path / name)
        with filled.open("r+b") as device, raw.open("rb") as file:
            for at in range(0, raw.stat().st_size, MIB):
                device.seek(at)
                device.write(GARBAGE[: raw.stat().st_size - at])
            for first, _, last in re.findall(r"> (\d+)(-(\d+))? </Range>", text):
                device.seek(int(first) * 4096)
                file.seek(int(first) * 4096)
                device.write(file.read((int(last or first) + 1 - int(first)) * 4096))
        over = type(disk)({"image0": filled}, disk.layout)
        parts = {name: cut(over, name) for name in ("ESP", "read", "compact", "root")}
        # dumpe2fs counts as free what we do, and some blocks that we leave out of caution.
        listed = toolbox.run(["dumpe2fs", toolbox.path(cut(disk, "root"))]).output
        free: set[int] = set()
        for line in re.findall(r"^  Free blocks: (.+)$", listed, re.MULTILINE):
            for first, _, last in re.findall(r"(\d+)(-(\d+))?", line):
                free.update(range(int(first), int(last or first) + 1))
        begin = disk.layout.extents["root"].offset
        with raw.open("rb") as file:
            ranges = free_ranges(file.fileno(), begin)
        ours = {at // 1024 for first, last in ranges for at in range(first - begin, last - begin, 1024)}
        (size,) = re.findall(r"^Block size: +(\d+)$", listed, re.MULTILINE)
        ours = {at * 1024 // int(size) for at in ours}
        assert ours <= free
        assert len(ours) > 0.9 * len(free)
        same = same_as_root(toolbox, root, parts["root"])
        toolbox.run(["fsck.fat", "-n", toolbox.path(parts["ESP"])])
        zeros = directory / "zeros"
        toolbox.run(["mcopy", "-i", toolbox.path(parts["ESP"]), "::zeros", toolbox.path(zeros)])
        found = [zeros.read_bytes()]
        out = directory / "out"
        out.mkdir()
        see = toolbox.path
        toolbox.run(["rdsquashfs", "--quiet", "--unpack-path", "/", "--unpack-root", see(out), see(parts["read"])])
        found.append((out / "zeros").read_bytes())
        toolbox.run(["fsck.erofs", f"--extract={see(directory)}/more", see(parts["compact"])])
        found.append((directory / "more/zeros").read_bytes())
        return same, found, again

    same, found, again = with_tools(test_cache, work, "filesystems")
    assert same
    assert found == [bytes(MIB)] * 3
    assert again, "holes do not count"
    # bmaptool checks all sums, then gives the raw disk back.
    done = subprocess.run(
        ["bmaptool", "copy", tmp_path / "N.raw", tmp_path / "copy"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "discovered bmap file" in done.stderr
    sums = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("N.raw", "copy")]
    assert sums[0] == sums[1]
    mapped = int(re.search(r"<MappedBlocksCount> (\d+) ", (tmp_path / "N.bmap").read_text())[1]) * 4096  # type: ignore[index]
    assert mapped < 40 * MIB, "of ext4, FAT, swap, squashfs and erofs only what is in use is in the map"


def test_bmaptool_refuses_a_disk_that_is_another_one(test_cache: Path, tmp_path: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        tree(directory)
        disk = written(
            toolbox,
            directory,
            partitions(root="40MiB") + "- mkfs: {base: root, mount: {mount_point: /}, label: root, type: ext4}\n",
        )
        shutil.copyfile(bmap_of(disk, toolbox, directory), tmp_path / "N.bmap")
        shutil.copyfile(disk.images["image0"], tmp_path / "N.raw")

    with_tools(test_cache, work)
    with (tmp_path / "N.raw").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"another")
    done = subprocess.run(
        ["bmaptool", "copy", tmp_path / "N.raw", tmp_path / "copy"], check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "checksum mismatch" in done.stderr
