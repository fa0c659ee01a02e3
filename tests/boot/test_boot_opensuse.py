"""openSUSE out of packages: signed ones of a stand-in, put in place by an ordinary user's build, boot and are whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, boot
from tests.boot.containers import container
from tests.serving import served
from tests.standins import suse
from tests.standins.make import key_of, made

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.boot

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "system": ". /etc/os-release; echo $ID $VERSION_ID",
    "packages": "rpm -q kernel-default zypper NetworkManager patterns-base-base file",
    "keys": "rpm -qa gpg-pubkey | wc -l",
    "whole": "sudo rpm -Va --nomtime | grep -v ' c '",
    "kernel": "readlink -e /boot/vmlinuz; findmnt --noheadings --output SOURCE /boot",
    "repositories": "zypper --no-refresh repos --uri",
}
# What scripts, elements and systemd change on purpose; times later than that of the build are set to that.
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/etc/machine-id", "/var/log/journal"}
# openSUSE keeps kernels beside their modules, with links in /boot, and GRUB follows no link to another file system.
LAYOUT = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - {name: BSP, type: EF02, size: 2MiB}
      - {name: boot, size: 256MiB, mkfs: {type: ext4, label: boot, mount: {mount_point: /boot, fstab: {}}}}
      - {name: root, size: 100%, mkfs: {type: ext4, mount: {mount_point: /, fstab: {}}}}
"""
IN_CONTAINER = "cat /etc/os-release; rpm -qa | wc -l; zypper --no-refresh repos | grep -c oss"


def test_leap_boots_its_packages_are_whole_and_its_container_runs(ordinary_user: Person, test_cache: Path) -> None:
    distribution = suse.leap(arch=host_arch())
    place = made(distribution, test_cache)
    folder = ordinary_user.directory("opensuse")
    (folder / "layout.yaml").write_text(LAYOUT)
    key = folder / "opensuse.asc"
    key.write_bytes(key_of(distribution, place).read_bytes())
    os.chown(key, ordinary_user.uid, ordinary_user.gid)
    with served(place) as url:
        env = ordinary_user.environment(
            DIB_BLOCK_DEVICE_CONFIG=(folder / "layout.yaml").as_uri(),
            DIB_DISTRIBUTION_MIRROR=url,
            DIB_ZYPPER_KEYS=str(key),
            DIB_RELEASE=distribution.system.version,
            DIB_DEV_USER_PASSWORD=PASSWORD,
        )
        recipe = str(ordinary_user.checkout / announced.RECIPE)
        words = ("-t", "qcow2,docker,vmlinuz", "-p", "file,diffutils", recipe, "opensuse-minimal", "vm")
        ordinary_user.dibble("build", "-o", "leap", *words, cwd=folder, env=env, timeout=1800)
    assert (folder / "leap.vmlinuz").stat().st_size > 1 << 20, "a kernel that /boot has only a link to"
    said = container(ordinary_user, folder / "leap.docker", ordinary_user.directory("opensuse-container"), IN_CONTAINER)
    assert 'ID="opensuse-leap"' in said
    assert int(said.splitlines()[-2]) > 100, "packages"
    assert said.splitlines()[-1] == "1", "repositories"

    _, printed = boot(ordinary_user, folder / "leap.qcow2", announced.USER, COMMANDS | announced.COMMANDS)
    announced.check(printed, "openSUSE")
    assert printed["state"].strip() == "running", printed["failed"]
    assert printed["system"].strip() == "opensuse-leap 16.0"
    assert "is not installed" not in printed["packages"]
    kernel, partition = printed["kernel"].split()
    assert kernel.startswith("/boot/vmlinuz-")
    assert partition == "/dev/vda2"
    assert printed["keys"].strip() == "1"
    assert {line.split()[-1] for line in printed["whole"].splitlines() if line.strip()} <= CHANGED
    assert f"{url}/{distribution.repositories[0].path}" in printed["repositories"]
