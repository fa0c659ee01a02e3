"""One build makes a root disk and a data disk, with shares of the first, room to grow, the same in each format."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

MIB = 1 << 20
LAYOUT = """
- local_loop: {name: image0, size: 1200MiB}
- local_loop:
    name: data
    size: 200MiB
    mkfs: {type: ext4, label: data, mount: {mount_point: /srv, fstab: {options: nofail}}}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - {name: root, type: '8300', size: 60%, mkfs: {mount: {mount_point: /, fstab: {fsck-passno: 1}}}}
      - {name: var, type: '8300', size: 50%, mkfs: {type: ext4, mount: {mount_point: /var}}}
      - {name: rest, type: '8300', size: 100%, mkfs: {type: ext4, mount: {mount_point: /var/tmp}}}
"""


def files_of(disk: Path, offset: int, directory: str) -> set[str]:
    """Names in a directory of an ext4 that begins at `offset`, as e2fsprogs reads them."""
    argv = ["debugfs", "-R", f"ls -p {directory}", f"{disk}?offset={offset}"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return {line.split("/")[5] for line in done.stdout.splitlines() if line.count("/") > 5}


def summary(disk: Path, offset: int) -> str:
    argv = ["dumpe2fs", "-h", f"{disk}?offset={offset}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_a_build_makes_two_disks_with_shares_and_room_to_grow(ordinary_user: Person) -> None:
    elements = SmallElements(ordinary_user, ordinary_user.directory("two-disks"))
    elements.script("small/install.d/50-data", "mkdir -p /srv /var/tmp; echo data > /srv/told; echo v > /var/told")
    (elements.place / "layout.yaml").write_text(LAYOUT)
    words = ("build", "-n", "-t", "raw,qcow2", "-o", "two", "--max-online-resize", str(4 << 20), "small")
    layout = f"file://{elements.place}/layout.yaml"
    elements.run(*words, DIB_BLOCK_DEVICE_CONFIG=layout)

    disk, data = elements.place / "two.raw", elements.place / "two-data.raw"
    assert (disk.stat().st_size, data.stat().st_size) == (1200 * MIB, 200 * MIB)
    for name in ("two", "two-data"):
        pair = (elements.place / f"{name}.raw", elements.place / f"{name}.qcow2")
        subprocess.run(["qemu-img", "compare", *pair], check=True, capture_output=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", disk], check=True, capture_output=True).stdout)
    parts = [(part["start"] * 512, part["size"] * 512) for part in table["partitiontable"]["partitions"]]
    root, var, rest = parts
    usable = rest[0] + rest[1] - root[0]
    for part, share in ((root, 0.6), (var, 0.2), (rest, 0.2)):
        assert abs(part[1] - share * usable) < 3 * MIB, "shares are of what is left, less the alignment"

    assert files_of(data, 0, "/") >= {"told", "lost+found"}
    assert "told" not in files_of(disk, root[0], "/srv"), "the place of the data disk is empty on the root disk"
    assert "told" in files_of(disk, var[0], "/")
    for image, (offset, _) in ((data, (0, 0)), *((disk, part) for part in parts)):
        argv = ["e2fsck", "-f", "-n", f"{image}?offset={offset}"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    # 16 GiB in blocks of 4 KiB take 128 descriptors of 64 bytes, 64 in a block.
    reserved = re.search(r"Reserved GDT blocks:\s+(\d+)", summary(disk, root[0]))
    assert reserved is not None
    assert int(reserved[1]) <= 2, "room for as much as was asked for, not for a thousand times the size"
    fstab = subprocess.run(
        ["debugfs", "-R", "cat /etc/fstab", f"{disk}?offset={root[0]}"], check=True, capture_output=True, text=True
    ).stdout
    assert [line.split()[:2] for line in fstab.splitlines() if "/srv" in line] == [["LABEL=data", "/srv"]]
