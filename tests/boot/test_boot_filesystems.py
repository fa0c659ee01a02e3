"""Root on xfs, btrfs with subvolumes, LVM on RAID, LUKS; and a kernel finds in every file system what belongs there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.boot.booted import PASSWORD, ROOT_MIB, boot, grow
from tests.people import ordinary_user, ourselves

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

TORTURE = Path(__file__).parents[1] / "torture.py"
# What has no place in a file system, or is lost by what fills it (docs/filesystems.md).
WITHOUT = {
    "xfs": [],
    "btrfs": [],
    "ext4": ["fractions"],
    "erofs": ["sockets", "early times"],
    "squashfs": ["acls", "sockets", "early times", "fractions"],
    "f2fs": ["acls", "attributes", "early times", "fractions", "fifos", "sockets"],
}
# Names that e2fsprogs and f2fs-tools make anew, or whose hard links they undo: those of symbolic links.
OWN = {
    "ext4": {".", "./lost+found", "./short-link", "./twin-of-a-link"},
    "f2fs": {".", "./short-link", "./twin-of-a-link"},
}
HEAD = """
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - {name: BSP, type: EF02, size: 8MiB}
"""
DATA = """
      - name: d-KIND
        size: SIZE
        mkfs:
          type: KIND
          mount: {mount_point: /t/KIND}
"""
XFS_ROOT = """
      - name: root
        size: 100%
        mkfs: {type: xfs, mount: {mount_point: /, fstab: {options: defaults, fsck-passno: 1}}}
"""
BTRFS_ROOT = """
      - name: root
        size: 100%
        mkfs:
          type: btrfs
          opts: --compress zstd:3
          subvolumes: ["@:/", "@home:/home"]
          mount: {mount_point: /, fstab: {options: "defaults,compress=zstd", fsck-passno: 0}}
"""
LVM_ON_RAID_ROOT = """
      - {name: a, type: FD00, size: 1650MiB}
      - {name: b, type: FD00, size: 1650MiB}
- raid: {name: array, base: [a, b], level: 1}
- lvm:
    name: lvm
    pvs: [{name: pv, base: array}]
    vgs: [{name: vg, base: pv}]
    lvs:
      - name: root
        base: vg
        size: 1400MiB
        mkfs: {type: ext4, mount: {mount_point: /, fstab: {options: defaults, fsck-passno: 1}}}
      - name: home
        base: vg
        size: 200MiB
        mkfs: {type: ext4, mount: {mount_point: /home, fstab: {options: defaults, fsck-passno: 2}}}
"""
MIRRORED_DISKS = """
- local_loop: {name: image0}
- local_loop: {name: second}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - {name: BSP, type: EF02, size: 8MiB}
      - {name: a, type: FD00, size: 1200MiB}
- partitioning:
    base: second
    label: gpt
    partitions:
      - {name: b, type: FD00, size: 1200MiB}
- raid:
    name: array
    base: [a, b]
    level: 1
    mkfs: {name: mkfs_root, type: ext4, mount: {mount_point: /, fstab: {options: defaults, fsck-passno: 1}}}
"""
LUKS_ROOT = """
      - {name: boot, size: 300MiB, mkfs: {type: ext4, mount: {mount_point: /boot, fstab: {fsck-passno: 2}}}}
      - {name: root, size: 100%}
- luks:
    name: vault
    base: root
    passphrase: disk
    mkfs: {name: mkfs_root, type: ext4, mount: {mount_point: /, fstab: {fsck-passno: 1}}}
"""
STATE = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root": "findmnt --noheadings --output FSTYPE,FSROOT /",
    "root size": "findmnt --noheadings --output SIZE --bytes /",
}


def built(
    person: Person,
    name: str,
    layout: str,
    *more: str,
    torture: bool = False,
    secret: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Path:
    directory = person.directory(f"boot-{name}")
    (directory / "layout.yaml").write_text(layout)
    (directory / "elements").mkdir()
    elements = ["debian-minimal", "vm", "devuser", "openssh-server", "growroot", *more]
    if torture:
        element = directory / "elements" / "torture"
        (element / "post-install.d").mkdir(parents=True)
        place = element / "static" / "usr" / "local" / "lib" / "torture.py"
        place.parent.mkdir(parents=True)
        shutil.copy(TORTURE, place)
        (element / "package-installs.yaml").write_text("python3:\n")
        lines = ["#!/bin/bash", "set -eu", "mkdir -p /expected"]
        for kind, without in WITHOUT.items():
            words = " ".join(f"'{word}'" for word in without)
            lines.append(f"python3 /usr/local/lib/torture.py make /t/{kind} /expected/{kind} {words}")
        hook = element / "post-install.d" / "90-torture"
        hook.write_text("\n".join(lines) + "\n")
        hook.chmod(0o755)
        elements.append("torture")
    env = person.environment(
        DIB_DEV_USER_PASSWORD=PASSWORD,
        DIB_DEV_USER_PWDLESS_SUDO="1",
        DIB_RELEASE="trixie",
        DIB_BLOCK_DEVICE_CONFIG=f"file://{directory}/layout.yaml",
        ELEMENTS_PATH=str(directory / "elements"),
        **(variables or {}),
    )
    options = []
    if secret is not None:
        (directory / "secret").write_text(secret + "\n")
        options = ["--secret", "disk=secret"]
    person.dibble("build", "-u", "-o", "image", *options, *elements, cwd=directory, env=env, timeout=1800)
    grow(directory / "image.qcow2")
    return directory / "image.qcow2"


def test_a_kernel_finds_every_entry_and_boots_from_xfs(debian_packages: None) -> None:
    person = ordinary_user()
    sizes = {"xfs": "400MiB", "btrfs": "300MiB"}
    data = "".join(DATA.replace("KIND", kind).replace("SIZE", sizes.get(kind, "200MiB")) for kind in WITHOUT)
    image = built(person, "xfs", HEAD + data + XFS_ROOT, torture=True)
    commands = {**STATE}
    for number, kind in enumerate(WITHOUT, 2):
        compare = f"python3 /usr/local/lib/torture.py compare /t/{kind} /expected/{kind}"
        commands[kind] = f"sudo mount -o ro /dev/vda{number} /t/{kind} && sudo {compare}"
    _, printed = boot(person, image, "devuser", commands, "--firmware", "bios")
    for kind in WITHOUT:
        first, *lines = printed[kind].splitlines()
        assert first.endswith(" differences"), printed[kind]
        wrong = [line for line in lines if line.partition(": ")[0] not in OWN.get(kind, ())]
        assert not wrong, f"{kind}: {wrong}"
        assert int(first.split()[0]) == len(lines)
    assert printed["root"].split() == ["xfs", "/"]
    assert int(printed["root size"]) > (ROOT_MIB - 1800) << 20, "the root file system has grown"
    assert (printed["failed"], printed["state"]) == ("", "running")


def test_root_in_a_subvolume_of_btrfs(debian_packages: None) -> None:
    person = ourselves()
    image = built(person, "btrfs", HEAD + BTRFS_ROOT)
    commands = {
        **STATE,
        "home": "findmnt --noheadings --output FSTYPE,FSROOT /home",
        "own home": "stat --format %U /home/devuser",
        "scrub": "sudo btrfs scrub start -B /",
        "volumes": "sudo btrfs subvolume list /",
        "flags": "cat /proc/cmdline",
    }
    _, printed = boot(person, image, "devuser", commands, "--firmware", "bios")
    assert printed["root"].split() == ["btrfs", "/@"]
    assert printed["home"].split() == ["btrfs", "/@home"]
    assert printed["own home"] == "devuser"
    assert "no errors found" in printed["scrub"]
    assert [line.split()[-1] for line in printed["volumes"].splitlines()] == ["@", "@home"]
    assert "rootflags=subvol=@" in printed["flags"]
    assert int(printed["root size"]) > ROOT_MIB << 20, "the root file system has grown"
    assert (printed["failed"], printed["state"]) == ("", "running")


def test_root_on_a_logical_volume_on_a_mirror_grows_on_a_larger_disk(debian_packages: None) -> None:
    person = ourselves()
    settings = {"DIB_GROWVOLS_TRIGGER": "systemd", "DIB_GROWVOLS_ARGS": "/=60% /home=300MiB"}
    image = built(person, "lvm-on-raid", HEAD + LVM_ON_RAID_ROOT, "lvm", "mdadm", "growvols", variables=settings)
    check = "sudo mdadm --action=check /dev/md/array && sudo mdadm --wait /dev/md/array"
    commands = {
        **STATE,
        "source": "findmnt --noheadings --output SOURCE /",
        "array": "sudo mdadm --detail --export /dev/md/array",
        "array's state": "sudo mdadm --detail /dev/md/array | grep 'State :'",
        "differing": f"{check}; cat /sys/block/md*/md/mismatch_cnt",
        "group": "sudo vgck vg && sudo pvs --noheadings --options pv_name",
        "added": "sudo pvs --noheadings --nosuffix --units m --options pv_size --select 'pv_name=/dev/vda4'",
        "volumes": "sudo lvs --noheadings --nosuffix --units m --options lv_name,lv_size vg",
        "home size": "findmnt --noheadings --output SIZE --bytes /home",
        "arrays": "grep '^ARRAY' /etc/mdadm/mdadm.conf",
        "in initramfs": "sudo lsinitramfs /boot/initrd.img-* | grep -x etc/mdadm/mdadm.conf",
    }
    _, printed = boot(person, image, "devuser", commands, "--firmware", "bios")
    assert printed["root"].split() == ["ext4", "/"]
    assert printed["source"] == "/dev/mapper/vg-root"
    assert "MD_LEVEL=raid1" in printed["array"].split()
    # "active" while the guest writes to it
    assert printed["array's state"].split() in (["State", ":", "clean"], ["State", ":", "active"])
    assert printed["differing"] == "0", "both halves are the same"
    first, second = sorted(printed["group"].split())
    assert (first.startswith("/dev/md"), second) == (True, "/dev/vda4"), "the free part of the disk is in the group"
    words = printed["volumes"].split()
    volumes = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    assert volumes["home"] == 200 + 300
    free = float(printed["added"]) - 4, float(printed["added"]) + 104  # MiB; what was free before counts too
    assert 0.6 * free[0] - 4 <= volumes["root"] - 1400 <= 0.6 * free[1] + 4
    for name, size in (("root", printed["root size"]), ("home", printed["home size"])):
        assert int(size) > 0.9 * volumes[name] * (1 << 20), f"the file system of {name} has grown with its volume"
    assert printed["arrays"].startswith("ARRAY /dev/md/array metadata=1.2 UUID=")
    assert printed["in initramfs"], "the initramfs knows the array"
    assert (printed["failed"], printed["state"]) == ("", "running")


def test_root_on_a_mirror_of_two_disks_grows_with_them(debian_packages: None) -> None:
    person = ourselves()
    image = built(person, "mirror", MIRRORED_DISKS, "mdadm")
    second = image.with_name("image-second.qcow2")
    grow(second)
    commands = {
        **STATE,
        "array": "sudo mdadm --detail --export /dev/md/array",
    }
    _, printed = boot(person, image, "devuser", commands, "--firmware", "bios", "--disk", str(second))
    assert printed["root"].split() == ["ext4", "/"]
    members = {"MD_DEVICE_dev_vda2_DEV=/dev/vda2", "MD_DEVICE_dev_vdb1_DEV=/dev/vdb1"}
    assert {"MD_LEVEL=raid1", *members} <= set(printed["array"].split())
    assert int(printed["root size"]) > ROOT_MIB << 20, "partitions, array and file system have grown"
    assert (printed["failed"], printed["state"]) == ("", "running")


def test_root_in_a_container_that_opens_with_a_passphrase_on_the_serial_line(debian_packages: None) -> None:
    person = ourselves()
    secret = "correct horse battery"
    image = built(person, "luks", HEAD + LUKS_ROOT, "cryptsetup", secret=secret)
    commands = {
        **STATE,
        "source": "findmnt --noheadings --output SOURCE /",
        "container": "sudo cryptsetup status vault",
        "header": "sudo cryptsetup luksDump /dev/vda3",
        "crypttab": "grep ^vault /etc/crypttab",
        # written so that the order, which sudo puts into the journal, is not found
        "in the image": f"sudo grep -r -a -l '[{secret[0]}]{secret[1:]}' /etc /boot /var /root || echo nowhere",
    }
    passphrase = str(image.with_name("secret"))
    told, printed = boot(person, image, "devuser", commands, "--firmware", "bios", "--passphrase-file", passphrase)
    assert told["seconds"]["kernel"] < told["seconds"]["unlock"] < told["seconds"]["prompt"]
    assert printed["root"].split() == ["ext4", "/"]
    assert printed["source"] == "/dev/mapper/vault"
    assert "LUKS2" in printed["container"]
    assert "aes-xts-plain64" in printed["container"]
    assert "argon2id" in printed["header"]
    assert printed["crypttab"].endswith(" none luks,initramfs")
    assert printed["in the image"] == "nowhere"
    assert int(printed["root size"]) > ROOT_MIB << 20, "partition, container and file system have grown"
    assert (printed["failed"], printed["state"]) == ("", "running")
