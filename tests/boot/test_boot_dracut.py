"""dracut, in place of initramfs-tools: its ramdisk finds a root on verity on LVM on LUKS on RAID, all in one image."""

from __future__ import annotations

import pytest
from tests.boot.booted import PASSWORD, boot
from tests.people import ourselves

from dibble.sandbox.tools import host_arch

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

LAYOUT = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - name: ESP
        type: EF00
        size: 150MiB
        mkfs: {type: vfat, mount: {mount_point: /boot/efi, fstab: {fsck-passno: 0}}}
      - {name: a, type: FD00, size: 760MiB}
      - {name: b, type: FD00, size: 760MiB}
- raid: {name: array, base: [a, b], level: 1}
- luks: {name: vault, base: array, passphrase: disk}
- lvm:
    name: lvm
    pvs: [{name: pv, base: vault}]
    vgs: [{name: vg, base: pv}]
    lvs:
      - {name: hashes, base: vg, size: 12MiB}
      - {name: spare, base: vg, size: 4MiB}
      - {name: data, base: vg, extents: 100%FREE}
- verity:
    name: sealed
    base: data
    hashes: hashes
    mkfs: {name: mkfs_root, type: erofs, mount: {mount_point: /}}
"""
ELEMENTS = ("debian-minimal", "vm", "block-device-efi", "devuser", "lvm", "mdadm", "cryptsetup", "verity")
COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root": "findmnt --noheadings --output FSTYPE /",
    "line": "cat /proc/cmdline",
    "verity": "sudo veritysetup status root",
    "volumes": "sudo lvs --noheadings --options lv_name,lv_active vg",
    "container": "sudo cryptsetup status vault",
    "array": "sudo mdadm --detail --export /dev/md/array",
    "written": "echo kept in memory | sudo tee /etc/written",
    "tools": "ls /usr/sbin/update-initramfs /etc/initramfs-tools",
}


def test_a_ramdisk_of_dracut_finds_a_root_on_verity_on_lvm_in_a_container_on_a_mirror(debian_packages: None) -> None:
    person = ourselves()
    place = person.directory("boot-dracut")
    (place / "layout.yaml").write_text(LAYOUT)
    (place / "secret").write_text("correct horse battery\n")
    element = place / "elements" / "with-dracut"
    element.mkdir(parents=True)
    (element / "element-deps").write_text("package-installs\n")
    (element / "package-installs.yaml").write_text("dracut:\n")  # with it there is no initramfs-tools
    env = person.environment(
        DIB_BLOCK_DEVICE_CONFIG=(place / "layout.yaml").as_uri(),
        DIB_BOOTLOADER="systemd-boot",
        DIB_DEV_USER_PASSWORD=PASSWORD,
        DIB_DEV_USER_PWDLESS_SUDO="1",
        DIB_GRUB_TIMEOUT="0",
        DIB_RELEASE="trixie",
        ELEMENTS_PATH=str(place / "elements"),
    )
    words = ("build", "-o", "image", "-t", "raw", "--secret", "disk=secret", *ELEMENTS, "with-dracut")
    person.dibble(*words, cwd=place, env=env, timeout=1800)
    options = ("--firmware", "uefi", "--passphrase-file", str(place / "secret"))
    told, printed = boot(person, place / "image.raw", "devuser", COMMANDS, *options)
    assert (printed["failed"], printed["state"]) == ("", "running")
    assert told["seconds"]["kernel"] < told["seconds"]["unlock"] < told["seconds"]["prompt"]
    assert printed["root"] == "overlay"
    assert printed["written"] == "kept in memory"
    told_of_it = dict(line.split(":", 1) for line in printed["verity"].splitlines() if ":" in line)
    status = {name.strip(): value.strip() for name, value in told_of_it.items()}
    assert (status["type"], status["status"]) == ("VERITY", "verified")
    assert f"roothash={status['root hash']}" in printed["line"].split()
    assert (status["data device"], status["hash device"]) == ("/dev/mapper/vg-data", "/dev/mapper/vg-hashes")
    assert [line.split() for line in printed["volumes"].splitlines()] == [
        ["data", "active"],
        ["hashes", "active"],
        ["spare", "active"],  # which the system has found, and not the ramdisk
    ]
    assert "LUKS2" in printed["container"]
    assert "MD_LEVEL=raid1" in printed["array"].split()
    assert "MD_DEVNAME=array" in printed["array"].split(), "mdadm.conf is in the ramdisk"
    assert printed["tools"].count("No such file or directory") == 2
