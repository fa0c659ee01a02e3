from __future__ import annotations

import uuid
from pathlib import Path
from textwrap import dedent

import pytest

import dibble
from dibble import registry
from dibble.disk.filesystems.base import FilesystemInfo
from dibble.disk.graph import parse
from dibble.disk.model import Defaults, Filesystem, FstabEntry, Graph, Image, Mount, Partition, Table
from dibble.elements.readers.block_device import BARE_FILE_SYSTEM

pytestmark = pytest.mark.unit

MIB = 1 << 20
SEED = uuid.UUID("99999999-8888-7777-6666-555555555555")
FILE = "disk.yaml"


def graph_of(text: str, defaults: Defaults | None = None) -> Graph:
    return parse(dedent(text), source=FILE, defaults=defaults or Defaults(SEED))


TREE = """\
- local_loop:
    name: image0
    partitioning:
      label: mbr
      partitions:
        - name: boot
          flags: [boot, primary]
          size: 512MiB
          mkfs:
            type: ext2
            label: boot
            mount:
              mount_point: /boot
              fstab:
                options: noatime
        - name: swap
          flags: [primary]
          type: '0x82'
          size: 1GiB
          mkfs:
            type: swap
            mount:
              mount_point: swap
              fstab:
        - name: var
          size: 25%
          mkfs:
            type: ext4
            mount:
              mount_point: /var/
        - name: root
          size: 100%
          mkfs:
            mount:
              mount_point: /
              fstab:
                fsck-passno: 1
"""

GRAPH = """\
- fstab: {base: mount_mkfs_root, fsck-passno: 1}
- mount: {base: mkfs_swap}
- mkfs: {base: root}
- mount: {base: mkfs_root, mount_point: /}
- mkfs: {base: boot, name: mkfs_boot, type: ext2, label: boot}
- partitioning:
    base: image0
    label: mbr
    partitions:
      - {name: boot, flags: [boot, primary], size: 512MiB}
      - {name: swap, flags: [primary], type: 0x82, size: 1GiB}
      - {name: var, size: 25%}
      - {name: root, size: 100%, base: partitioning_image0}
- mkfs: {base: swap, type: swap}
- mount: {name: mount_mkfs_boot, base: mkfs_boot, mount_point: /boot}
- mkfs: {base: var, type: ext4}
- fstab: {base: mount_mkfs_boot, options: noatime}
- fstab: {base: mount_mkfs_swap, options: ignored, fsck-passno: 2}
- mount: {base: mkfs_var, mount_point: /var}
- local_loop: {name: image0}
"""

MIXED = """\
- local_loop:
    name: image0
- mkfs:
    base: boot
    type: ext2
    label: boot
    mount:
      mount_point: /boot
      fstab: {options: noatime}
- partitioning:
    base: image0
    label: mbr
    partitions:
      - {name: boot, flags: [boot, primary], size: 512MiB}
      - {name: swap, flags: [primary], type: "0x82", size: 1GiB, mkfs: {type: swap, mount: {fstab: {}}}}
      - {name: var, size: 25%, mkfs: {type: ext4, mount: {mount_point: /var}}}
      - {name: root, size: 100%, mkfs: }
- mount:
    base: mkfs_root
    mount_point: /
    fstab: {fsck-passno: 1}
"""


@pytest.mark.parametrize("text", [GRAPH, MIXED], ids=["graph", "mixed"])
def test_every_form_gives_the_same_graph_as_the_tree(text: str) -> None:
    assert graph_of(text) == graph_of(TREE)


def test_a_tree_is_read_with_all_its_values() -> None:
    graph = graph_of(TREE)
    assert graph.images == (Image("image0", None, 512),)
    assert graph.tables == (
        Table(
            "partitioning_image0",
            "image0",
            "mbr",
            (
                Partition("boot", 1, "0x83", 512 * MIB, None, bootable=True, primary=True),
                Partition("swap", 2, "0x82", 1024 * MIB, None, primary=True),
                Partition("var", 5, "0x83", None, 25.0),
                Partition("root", 6, "0x83", None, 100.0),
            ),
        ),
    )
    assert [(fs.name, fs.base, fs.type, fs.label, fs.options) for fs in graph.filesystems] == [
        ("mkfs_boot", "boot", "ext2", "boot", ()),
        ("mkfs_swap", "swap", "swap", "mkfs_swap", ()),
        ("mkfs_var", "var", "ext4", "mkfs_var", ()),
        ("mkfs_root", "root", "ext4", "cloudimg-rootfs", ("-i", "4096", "-J", "size=64")),
    ]
    assert graph.mounts == (
        Mount("mount_mkfs_root", "mkfs_root", "/"),
        Mount("mount_mkfs_boot", "mkfs_boot", "/boot"),
        Mount("mount_mkfs_var", "mkfs_var", "/var"),
        Mount("mount_mkfs_swap", "mkfs_swap", "none"),
    )
    assert graph.fstab == (
        FstabEntry("fstab_mount_mkfs_root", "mount_mkfs_root", "defaults", 0, 1),
        FstabEntry("fstab_mount_mkfs_boot", "mount_mkfs_boot", "noatime", 0, 2),
        FstabEntry("fstab_mount_mkfs_swap", "mount_mkfs_swap", "sw", 0, 0),
    )


def test_nodes_keep_their_places() -> None:
    graph = graph_of(TREE)
    root = graph.filesystems[-1].where
    assert TREE.splitlines()[32] == "          mkfs:"
    assert (root.file, root.line, root.column) == (FILE, 33, 11)
    partition = graph.tables[0].partitions[3].where
    assert (partition.line, partition.column) == (31, 11)


def test_the_built_in_description_is_one_file_system_over_the_disk() -> None:
    graph = graph_of(BARE_FILE_SYSTEM)
    assert graph.tables == ()
    assert [(fs.base, fs.type) for fs in graph.filesystems] == [("image0", "ext4")]
    assert graph.fstab == (FstabEntry("fstab_mount_mkfs_root", "mount_mkfs_root", "defaults", 0, 1),)


def test_the_descriptions_of_all_shipped_elements_are_valid() -> None:
    files = sorted((Path(dibble.__file__).parent / "catalogue/elements").glob("*/block-device-*.yaml"))
    assert files
    for file in files:
        if "lvm" not in file.parent.name:
            assert parse(file.read_text(), source=str(file), defaults=Defaults(SEED)).mounts


def test_a_disk_may_have_a_size_and_sectors_of_4096_bytes() -> None:
    text = BARE_FILE_SYSTEM.replace("name: image0\n", "name: image0\n    size: 4GiB\n    block_size: 4096\n", 1)
    assert graph_of(text).images == (Image("image0", 4 << 30, 4096),)


def test_the_asked_sector_size_goes_before_that_of_the_node() -> None:
    text = BARE_FILE_SYSTEM.replace("name: image0\n", "name: image0\n    block_size: 4096\n", 1)
    assert graph_of(text, Defaults(SEED, sector_size=512)).images[0].sector_size == 512


def test_a_whole_number_as_size_is_bytes() -> None:
    text = BARE_FILE_SYSTEM.replace("name: image0\n", "name: image0\n    size: 1073741824\n", 1)
    assert graph_of(text).images[0].size == 1 << 30


def test_json_is_read_too() -> None:
    text = (
        '[{"local_loop": {"name": "image0", "mkfs": {"name": "mkfs_root",'
        ' "mount": {"mount_point": "/", "fstab": {"options": "defaults", "fsck-passno": 1}}}}}]'
    )
    assert graph_of(text) == graph_of(BARE_FILE_SYSTEM)


def test_two_disks_are_kept_in_their_order() -> None:
    text = BARE_FILE_SYSTEM + "- local_loop: {name: data, size: 1GiB, mkfs: {type: ext4, mount: {mount_point: /srv}}}\n"
    graph = graph_of(text)
    assert [image.name for image in graph.images] == ["image0", "data"]
    assert [fs.base for fs in graph.filesystems] == ["image0", "data"]


# The root file system is the one mounted at /, whatever it is called.


def root_of(mkfs: str, defaults: Defaults | None = None) -> Filesystem:
    text = f"- local_loop: {{name: image0, mkfs: {{{mkfs} mount: {{mount_point: /}}}}}}"
    return graph_of(text, defaults).filesystems[0]


@pytest.mark.parametrize("name", ["", "name: mkfs_root,", "name: system,"])
def test_the_root_gets_type_label_and_options_whatever_its_name(name: str) -> None:
    defaults = Defaults(SEED, root_fs_type="ext4", root_label="mine", mkfs_options="-O '^a b'", max_online_resize=99)
    root = root_of(name, defaults)
    assert (root.type, root.label) == ("ext4", "mine")
    assert root.options == ("-E", "resize=99", "-i", "4096", "-J", "size=64", "-O", "^a b")


def test_the_type_asked_for_is_the_root_file_systems() -> None:
    root = root_of("", Defaults(SEED, root_fs_type="ext3", journal_mib=8, mkfs_options="-m 0"))
    assert (root.type, root.options) == ("ext3", ("-m", "0"))


def test_what_the_root_node_says_goes_before_what_was_asked() -> None:
    root = root_of("type: ext2, label: own, opts: -N 9,", Defaults(SEED, root_label="asked", mkfs_options="-m 0"))
    assert (root.type, root.label, root.options) == ("ext2", "own", ("-N", "9"))


def test_the_root_options_are_not_given_to_others() -> None:
    graph = graph_of(TREE, Defaults(SEED, mkfs_options="-m 0"))
    assert [fs.name for fs in graph.filesystems if "-m" in fs.options] == ["mkfs_root"]


class Xfs:
    info = FilesystemInfo("xfs", label_length=12)


def test_an_xfs_root_has_a_label_that_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN["filesystems"], "xfs", f"{__name__}:Xfs")
    assert root_of("", Defaults(SEED, root_fs_type="xfs")).label == "img-rootfs"


def test_labels_of_vfat_are_upper_case() -> None:
    text = BARE_FILE_SYSTEM + "- local_loop: {name: b, mkfs: {type: vfat, label: esp-1, mount: {mount_point: /b}}}\n"
    assert graph_of(text).filesystems[1].label == "ESP-1"


def test_uuids_come_of_seed_and_name_unless_given() -> None:
    assert root_of("").uuid == root_of("").uuid
    assert root_of("").uuid != root_of("name: other,").uuid
    assert root_of("").uuid != root_of("", Defaults(uuid.UUID(int=1))).uuid
    given_uuid = "0b5c1d52-9d0f-4f2b-8a4e-0d4d9d2a4b11"
    assert root_of(f"uuid: {given_uuid},").uuid == uuid.UUID(given_uuid)


def test_mount_points_are_ordered_so_that_each_comes_after_those_above_it() -> None:
    points = ["/var/log", "/boot/efi", "/", "/var", "/boot", "/a-b", "/a"]
    nodes = "".join(
        f"- local_loop: {{name: image{n}, mkfs: {{type: ext4, mount: {{mount_point: {point}}}}}}}\n"
        for n, point in enumerate(points)
    )
    assert [m.point for m in graph_of(nodes).mounts] == ["/", "/a", "/a-b", "/boot", "/boot/efi", "/var", "/var/log"]


def test_gpt_types_have_one_spelling() -> None:
    table = graph_of(
        """\
        - local_loop:
            name: image0
            partitioning:
              label: gpt
              align: 1MiB
              partitions:
                - {name: a, type: ef00, size: 8MiB}
                - {name: b, type: '0x4100', size: 8MiB}
                - {name: c, type: C12A7328-F81F-11D2-BA4B-00A0C93EC93B, size: 8MiB}
                - {name: d, type: 0700, size: 8MiB}
                - {name: e, type: 0FC63DAF-8483-4772-8E79-3D69D8477DE5, size: 8MiB}
                - {name: root, size: 33.3%, flags: [boot], mkfs: {mount: {mount_point: /}}}
        """
    ).tables[0]
    assert [part.type for part in table.partitions] == [
        "EF00",
        "4100",
        "EF00",
        "0700",
        "0fc63daf-8483-4772-8e79-3d69d8477de5",
        "8300",
    ]
    assert [part.number for part in table.partitions] == [1, 2, 3, 4, 5, 6]
    assert table.partitions[-1].percent == 33.3


def test_anchors_and_merge_keys_are_followed() -> None:
    text = """\
        - local_loop: {name: image0, mkfs: {mount: {mount_point: /, fstab: &line {options: ro, fsck-passno: 1}}}}
        - local_loop: {name: b, mkfs: {type: ext4, mount: {mount_point: /b, fstab: {<<: *line, fsck-passno: 2}}}}
        """
    assert [(line.options, line.passno) for line in graph_of(text).fstab] == [("ro", 1), ("ro", 2)]


def test_options_of_swap_are_ignored() -> None:
    text = BARE_FILE_SYSTEM + "- local_loop: {name: b, mkfs: {type: swap, opts: -f, mount: }}\n"
    assert graph_of(text).filesystems[1].options == ()
