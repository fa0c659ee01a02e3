"""Kind + name → class: one built-in table, then the entry points of third parties (design.md 1.8).

A class is imported only when it is asked for. Installed metadata is read only for a name that is not built in, or to
list everything, because importing `importlib.metadata` alone costs some 40 ms.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Any

from dibble.errors import UsageError

# kind (also the entry-point group, as `dibble.KIND`) → name → "module:attribute"
BUILT_IN: dict[str, dict[str, str]] = {
    "verbs": {
        "build": "dibble.cli.build:build",
        "boot": "dibble.cli.boot:boot",
        "cache": "dibble.cli.cache:cache",
        "check": "dibble.cli.check:check",
        "doctor": "dibble.cli.doctor:doctor",
        "elements": "dibble.cli.elements:elements",
        "explain": "dibble.cli.explain:explain",
        "matrix": "dibble.cli.matrix:matrix",
        "plan": "dibble.cli.plan:plan",
        "publish": "dibble.cli.publish:publish",
        "report": "dibble.cli.report:report",
        "shell": "dibble.cli.shell:shell",
        "disk-image-create": "dibble.cli.disk_image_create:disk_image_create",
        "ramdisk-image-create": "dibble.cli.disk_image_create:ramdisk_image_create",
        "tools": "dibble.cli.tools:tools",
    },
    "package_managers": {
        "apt": "dibble.packages.apt:Apt",
        "dnf": "dibble.packages.dnf:Dnf",
        "pacman": "dibble.packages.pacman:Pacman",
        "portage": "dibble.packages.portage:Portage",
        "zypper": "dibble.packages.zypper:Zypper",
    },
    "filesystems": {
        "btrfs": "dibble.disk.filesystems.btrfs:Btrfs",
        "erofs": "dibble.disk.filesystems.readonly:Erofs",
        "ext2": "dibble.disk.filesystems.ext:Ext2",
        "ext3": "dibble.disk.filesystems.ext:Ext3",
        "ext4": "dibble.disk.filesystems.ext:Ext4",
        "fat": "dibble.disk.filesystems.vfat:Vfat",
        "f2fs": "dibble.disk.filesystems.f2fs:F2fs",
        "squashfs": "dibble.disk.filesystems.readonly:Squashfs",
        "swap": "dibble.disk.filesystems.swap:Swap",
        "vfat": "dibble.disk.filesystems.vfat:Vfat",
        "xfs": "dibble.disk.filesystems.xfs:Xfs",
    },
    "boot_loaders": {
        "extlinux": "dibble.boot.extlinux:Extlinux",
        "grub": "dibble.boot.grub:Grub",
        "systemd-boot": "dibble.boot.systemd_boot:SystemdBoot",
    },
    "disk_nodes": {
        "local_loop": "dibble.disk.nodes.image:Image",
        "partitioning": "dibble.disk.nodes.partition:Partitioning",
        "lvm": "dibble.disk.nodes.lvm:LvmNode",
        "raid": "dibble.disk.nodes.raid:Raid",
        "luks": "dibble.disk.nodes.luks:LuksNode",
        "verity": "dibble.disk.nodes.verity:VerityNode",
        "raw": "dibble.disk.nodes.raw:RawNode",
        "mkfs": "dibble.disk.nodes.mkfs:Mkfs",
        "mount": "dibble.disk.nodes.mount:Mount",
        "fstab": "dibble.disk.nodes.fstab:Fstab",
    },
    "pools": {
        "dask": "dibble.fleet.dask_pool:DaskPool",
        "local": "dibble.fleet.local:LocalPool",
    },
    "environments": {},  # presets: files in catalogue/environments, and what third parties add
    "publishers": {
        "device": "dibble.publish.block_device:BlockDevice",
        "docker": "dibble.publish.docker:Docker",
        "ec2": "dibble.publish.ec2:Ec2",
        "iscsi": "dibble.publish.iscsi:Iscsi",
        "openstack": "dibble.publish.openstack:OpenStack",
        "s3": "dibble.publish.s3:S3",
    },
    "outputs": {
        "raw": "dibble.outputs.raw:Raw",
        "qcow2": "dibble.outputs.qcow2:Qcow2",
        "vmdk": "dibble.outputs.virtual_disks:Vmdk",
        "vhd": "dibble.outputs.virtual_disks:Vhd",
        "vhdx": "dibble.outputs.virtual_disks:Vhdx",
        "vdi": "dibble.outputs.virtual_disks:Vdi",
        "ova": "dibble.outputs.ova:Ova",
        "bmap": "dibble.outputs.bmap:Bmap",
        "tar": "dibble.outputs.tar:Tar",
        "tar.gz": "dibble.outputs.tar:TarGz",
        "tar.xz": "dibble.outputs.tar:TarXz",
        "tar.zst": "dibble.outputs.tar:TarZst",
        "tgz": "dibble.outputs.tar:Tgz",
        "aci": "dibble.outputs.aci:Aci",
        "squashfs": "dibble.outputs.readonly:Squashfs",
        "erofs": "dibble.outputs.readonly:Erofs",
        "iso": "dibble.outputs.iso:Iso",
        "vmlinuz": "dibble.outputs.kernel:Vmlinuz",
        "initrd": "dibble.outputs.kernel:Initrd",
        "docker": "dibble.outputs.docker:Docker",
        "oci": "dibble.outputs.oci:Oci",
    },
}


def names(kind: str, *, installed: bool = True) -> list[str]:
    """All names of a kind, sorted; with `installed`, those of third-party packages too."""
    known = set(BUILT_IN[kind])
    if installed:
        known |= set(_entry_points(kind))
    return sorted(known)


def load(kind: str, name: str) -> Any:  # the class differs by kind; callers state the protocol they expect
    """Import and return what `name` stands for. Raises UsageError for an unknown name, naming the nearest."""
    target = BUILT_IN[kind].get(name)
    if target is None:
        found = _entry_points(kind).get(name)
        if found is None:
            raise unknown(kind.rstrip("s").replace("_", " "), name, names(kind))
        return found.load()
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """The error for a word that is not in a list: with the nearest words first."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(known)}"
    return UsageError(f'unknown {what} "{name}"', hint=hint)


def _entry_points(kind: str) -> dict[str, Any]:
    from importlib.metadata import entry_points

    found: dict[str, Any] = {}
    for point in entry_points(group=f"dibble.{kind}"):
        owner = point.dist.name if point.dist else "?"
        if point.name in BUILT_IN[kind]:
            raise UsageError(
                f'the installed package {owner} declares the {kind} "{point.name}", which is built in',
                hint=f"uninstall {owner}, or ask its author for another name",
            )
        if point.name in found:
            raise UsageError(f'two installed packages declare the {kind} "{point.name}", one is {owner}')
        found[point.name] = point
    return found
