from __future__ import annotations

import uuid

import pytest

from dibble.disk.fstab import fstab_text, getval, read_only_root
from dibble.disk.graph import parse
from dibble.disk.model import Defaults, Graph
from dibble.errors import DiskLayoutError

pytestmark = pytest.mark.unit


def disks(*nodes: str) -> Graph:
    """A graph of disks without tables: each node is the mkfs on one."""
    text = "".join(f"- local_loop: {{name: image{n}, mkfs: {{{node}}}}}\n" for n, node in enumerate(nodes))
    return parse(text, source="disk.yaml", defaults=Defaults(uuid.UUID(int=1)))


SYSTEM = disks(
    "type: swap, label: swap1, mount: {mount_point: swap, fstab: {options: pri=5}}",
    "type: ext4, label: logs, mount: {mount_point: /var/log, fstab: {options: 'nodev,noexec', dump-freq: 1}}",
    "name: system, mount: {mount_point: /, fstab: {fsck-passno: 1}}",
    "type: vfat, name: esp, mount: {mount_point: /boot/efi, fstab: {options: umask=0077}}",
    "type: ext2, name: kernels, mount: {mount_point: /boot}",
)


def lines(graph: Graph) -> list[str]:
    return [line for line in fstab_text(graph).splitlines() if not line.startswith("#")]


def test_lines_are_in_mount_order_with_labels_and_mounts_without_fstab_are_left_out() -> None:
    assert lines(SYSTEM) == [
        "LABEL=cloudimg-rootfs / ext4 defaults 0 1",
        "LABEL=ESP /boot/efi vfat umask=0077 0 2",
        "LABEL=logs /var/log ext4 nodev,noexec 1 2",
        "LABEL=swap1 none swap sw 0 0",
    ]
    assert fstab_text(SYSTEM).endswith("0 0\n")


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ("name: system, mount: {mount_point: /}", True),
        ("name: system, mount: {mount_point: /, fstab: {}}", False),
        ("name: system, type: erofs, mount: {mount_point: /}", False),
    ],
)
def test_a_root_that_nothing_makes_writable_is_told_of(node: str, told: bool) -> None:
    reason = read_only_root(disks("type: ext2, name: kernels, mount: {mount_point: /boot}", node))
    assert bool(reason) is told
    assert not told or reason.startswith("disk.yaml:2:")
    assert not read_only_root(SYSTEM)


def test_two_swaps_both_have_a_line() -> None:
    root = "mount: {mount_point: /}"
    swap = "type: swap, mount: {mount_point: swap, fstab: }"
    assert lines(disks(root, swap, swap)) == [
        "LABEL=mkfs_image1 none swap sw 0 0",
        "LABEL=mkfs_image2 none swap sw 0 0",
    ]


def test_blanks_in_labels_and_mount_points_stay_within_their_field() -> None:
    graph = disks(
        "label: my root, mount: {mount_point: /, fstab: }", 'type: ext4, mount: {mount_point: "/a b\\\\c", fstab: }'
    )
    assert lines(graph) == [
        r"LABEL=my\040root / ext4 defaults 0 2",
        r"LABEL=mkfs_image1 /a\040b\134c ext4 defaults 0 2",
    ]


@pytest.mark.parametrize(
    ("symbol", "value"),
    [
        ("root-label", "cloudimg-rootfs"),
        ("root-fstype", "ext4"),
        ("boot-label", "kernels"),
        ("mount-points", "/var/log|/|/boot/efi|/boot"),
    ],
)
def test_hooks_are_told_what_the_description_says(symbol: str, value: str) -> None:
    assert getval(SYSTEM, symbol) == value


def test_without_a_boot_file_system_its_label_is_empty() -> None:
    assert getval(disks("mount: {mount_point: /}"), "boot-label") == ""


def test_an_unknown_symbol_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(DiskLayoutError, match='unknown symbol "root-labels"') as caught:
        getval(SYSTEM, "root-labels")
    assert "root-label" in caught.value.hint
    assert caught.value.exit_status != 0


@pytest.mark.parametrize("symbol", ["image-path", "image-block-device", "image-block-devices"])
def test_what_only_a_made_disk_can_tell_is_refused(symbol: str) -> None:
    with pytest.raises(DiskLayoutError, match="not known from the description alone"):
        getval(SYSTEM, symbol)


def test_subvolumes_get_lines_of_their_own_below_their_file_system() -> None:
    graph = disks(
        "type: btrfs, subvolumes: ['@:/', '@log:/var/log', '@home:/home'],"
        " mount: {mount_point: /, fstab: {options: 'defaults,compress=zstd', fsck-passno: 1}}",
        "type: btrfs, name: data, subvolumes: ['@top:/', '@a b:/x'], mount: {mount_point: /data, fstab: {}}",
    )
    assert lines(graph) == [
        "LABEL=cloudimg-rootfs / btrfs defaults,compress=zstd,subvol=@ 0 1",
        "LABEL=cloudimg-rootfs /home btrfs defaults,compress=zstd,subvol=@home 0 0",
        "LABEL=cloudimg-rootfs /var/log btrfs defaults,compress=zstd,subvol=@log 0 0",
        "LABEL=data /data btrfs defaults,subvol=@top 0 2",
        "LABEL=data /data/x btrfs defaults,subvol=@a\\040b 0 0",
    ]
