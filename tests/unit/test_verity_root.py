"""How the kernel's command line names a root on verity."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dibble.boot.base import BootSetup, filesystem_of
from dibble.boot.extlinux import Extlinux
from dibble.boot.grub import Grub
from dibble.boot.verity_root import sealed_line, verity_root
from dibble.disk.graph import parse
from dibble.disk.model import Defaults, Graph
from dibble.disk.tables.ids import mbr_disk_id, partition_guid
from dibble.errors import DiskLayoutError
from dibble.events import Events

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.boot.base import BootLoader
    from dibble.disk.volumes.verity import Verity

pytestmark = pytest.mark.unit

SEED = UUID("99999999-8888-7777-6666-555555555555")
DISK = "- local_loop: {name: image0}\n"
PARTITIONS = """\
- partitioning:
    base: image0
    label: LABEL
    partitions: [{name: tree, size: 10MiB}, {name: data, size: 100%}]
"""
ROOT = "mkfs: {name: mkfs_root, type: ext4, mount: {mount_point: /}}"
SEALED = f"- verity: {{name: sealed, base: data, hashes: tree, {ROOT}}}\n"
ON_LVM = """\
- lvm:
    name: lvm
    pvs: [{name: pv, base: data}]
    vgs: [{name: vg, base: pv}]
    lvs: [{name: inner, base: vg, size: 200MiB}]
"""
HASH = bytes(range(32))


def graph_of(text: str, label: str = "gpt") -> Graph:
    return parse(DISK + text.replace("LABEL", label), source="disk.yaml", defaults=Defaults(SEED))


def verity_of(graph: Graph) -> Verity | None:
    root = filesystem_of(graph, "/")
    assert root is not None
    return verity_root(graph, root)


def line_of(graph: Graph) -> list[str]:
    verity = verity_of(graph)
    assert verity is not None
    return sealed_line("root=LABEL=x ro  console=ttyS0", verity, HASH, graph, SEED).split(" ")


def test_the_line_starts_from_the_device_and_no_longer_from_what_lies_below_it() -> None:
    graph = graph_of(PARTITIONS + SEALED)
    (table,) = graph.tables
    assert line_of(graph) == [
        "root=/dev/mapper/root",
        f"roothash={HASH.hex()}",
        f"systemd.verity_root_data=PARTUUID={partition_guid(SEED, table, 'data')}",
        f"systemd.verity_root_hash=PARTUUID={partition_guid(SEED, table, 'tree')}",
        "ro",
        "console=ttyS0",
    ]


def test_a_logical_partition_of_an_mbr_has_the_disks_number_and_its_own() -> None:
    graph = graph_of(PARTITIONS + SEALED, "mbr")
    number = f"{mbr_disk_id(SEED, graph.tables[0]):08x}"
    assert line_of(graph)[2:4] == [
        f"systemd.verity_root_data=PARTUUID={number}-06",
        f"systemd.verity_root_hash=PARTUUID={number}-05",
    ]


def test_a_volume_below_has_its_path() -> None:
    graph = graph_of(PARTITIONS + ON_LVM + SEALED.replace("base: data", "base: inner"))
    assert line_of(graph)[2] == "systemd.verity_root_data=/dev/mapper/vg-inner"


def test_another_root_is_none_of_it() -> None:
    assert verity_of(graph_of(PARTITIONS.replace("100%}", f"100%, {ROOT}}}"))) is None


@pytest.mark.parametrize("loader", [Grub(), Extlinux()])
def test_a_loader_that_gives_no_root_hash_is_refused(tmp_path: Path, loader: BootLoader) -> None:
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/grub/grub.cfg").touch()
    graph = graph_of(PARTITIONS + SEALED)
    setup = BootSetup(graph, tmp_path, "amd64", tmp_path, None, Events(), 0)  # type: ignore[arg-type]  # runs no tool
    with pytest.raises(DiskLayoutError, match='root hash: the root on verity "sealed" would start unchecked') as raised:
        loader.install(setup)
    assert "DIB_BOOTLOADER=systemd-boot" in raised.value.hint
    assert raised.value.where is not None
    assert (raised.value.where.file, raised.value.where.line) == ("disk.yaml", 6)


def test_what_nothing_would_open_is_refused() -> None:
    between = PARTITIONS + SEALED.replace(f", {ROOT}", "") + ON_LVM.replace("base: data", "base: sealed")
    with pytest.raises(DiskLayoutError, match='does not stand right on verity "sealed"') as raised:
        verity_of(graph_of(between.replace("size: 200MiB", f"size: 200MiB, {ROOT}")))
    assert raised.value.hint
    graph = graph_of("- local_loop: {name: data}\n" + PARTITIONS.replace(", {name: data, size: 100%}", "") + SEALED)
    with pytest.raises(DiskLayoutError, match='"data" is a whole disk'):
        line_of(graph)
