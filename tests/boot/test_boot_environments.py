"""Every environment's image starts with what that place gives it, finds its settings, and its user logs in.

They are GPT disks for BIOS and UEFI, and start by either; disks with an MBR, and with a GPT for BIOS alone, in
test_boot_elements.py. Most share one base, so each costs its last steps; the preset alone says what differs. What
cannot be had from QEMU stands in docs/environments.md.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.boot.booted import ADDRESS, PASSWORD, ROOT_MIB, boot
from tests.people import ordinary_user, ourselves

from dibble.evidence.metadata import Settings, openstack, user_data_for
from dibble.recipe.presets import preset_names
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

USER = "ada"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEw0 somebody@example"
DISK = "$(lsblk --noheadings --nodeps --output PKNAME $(findmnt --noheadings --output SOURCE /))"
KNOWN = "failure to find primary DHCP interface"
"""Of Azure's source: the DHCP of QEMU tells no routes (option 121). It goes on after that."""
COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "hostname": "hostname",
    "user": "id -un",
    "sudo": "sudo -n id -u",
    "keys": "cat ~/.ssh/authorized_keys",
    "source": "cat /run/cloud-init/result.json",
    "cloud": "cat /run/cloud-init/cloud-id",
    "errors": f"sudo grep -E '(ERROR|CRITICAL)]' /var/log/cloud-init.log | grep -v '{KNOWN}'",
    "disk": f"echo {DISK}",
    "disk drivers": f"udevadm info --attribute-walk --name=/dev/{DISK} | grep DRIVERS",
    "card": "basename $(readlink -f /sys/class/net/e*/device/driver)",
    "address": ADDRESS,
    "root size": "findmnt --noheadings --output SIZE --bytes /",
    "firmware": "test -d /sys/firmware/efi && echo uefi || echo bios",
    "arguments": "cat /proc/cmdline",
    "ssh": "systemctl is-active ssh",
    "host key": "ls /etc/ssh/ssh_host_ed25519_key",
    "name": 'getent hosts "$(hostname)"',
    "machine": "cat /etc/machine-id",
    "audit": "dpkg --audit",
}


@dataclass(frozen=True)
class Case:
    """An environment, what its guest finds, and how cloud-init names where it found its settings."""

    name: str
    suffix: str
    source: str
    cloud: str
    disk: str
    drivers: tuple[str, str]
    """Of disk and network card."""
    argument: str = "console=ttyS0,115200"
    firmware: str = "bios"
    rootless: bool = False
    release: str = "trixie"
    options: tuple[str, ...] = ()


VIRTIO = ("virtio_blk", "virtio_net")
ANY = ("ahci", "e1000e")
CASES = (
    Case("openstack", "qcow2", "DataSourceOpenStackLocal", "openstack", "vda", VIRTIO, "net.ifnames=0"),
    Case("kvm", "qcow2", "DataSourceNoCloud", "nocloud", "vda", VIRTIO, rootless=True),
    Case("vmware", "vmdk", "DataSourceOVF", "ovf", "sda", ("vmw_pvscsi", "vmxnet3")),
    Case("ec2", "raw", "DataSourceEc2Local", "aws", "nvme0n1", ("nvme", "e1000e"), "nvme_core.io_timeout=4294967295"),
    Case("azure", "vhd", "DataSourceAzure", "azure", "sda", ("ahci", "virtio_net"), "earlyprintk=ttyS0,115200"),
    Case("gce", "raw", "DataSourceGCELocal", "gce", "sda", ("virtio_scsi", "virtio_net"), firmware="uefi"),
    Case("baremetal", "raw", "DataSourceNoCloud", "nocloud", "sda", ANY, firmware="uefi", release="bookworm"),
    Case("ironic", "qcow2", "DataSourceConfigDrive", "configdrive", "sda", ANY, options=("--metadata", "none")),
)


def built(case: Case, person: Person, directory: Path) -> Path:
    variables = {"DIB_RELEASE": case.release, "DIB_GRUB_TIMEOUT": "0"}
    words = ("build", "--environment", case.name, "-o", "image", "debian-minimal")
    person.dibble(*words, cwd=directory, env=person.environment(**variables), timeout=1800)
    return directory / f"image.{case.suffix}"


def on_a_larger_disk(image: Path, directory: Path, person: Person) -> Path:
    """A disk of 5 GiB that begins as the image, whatever format that has."""
    disk = directory / "disk.qcow2"
    kind = {"vhd": "vpc"}.get(image.suffix[1:], image.suffix[1:])
    person.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", image.name, disk.name, "5G"], cwd=directory
    )
    return disk


def deployed_by_ironic(image: Path, directory: Path) -> Path:
    """The image on the machine's disk, and a config drive in a partition of its own at the end of it."""
    disk, tree, start = directory / "disk.raw", directory / "drive", (5 << 30) - (65 << 20)
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, disk], check=True)
    with disk.open("rb+") as file:
        file.truncate(5 << 30)
    table = ["-e", "-n", f"0:{start // 512}:+64M", "-c", "0:config-2"]
    subprocess.run(["sgdisk", *table, disk], check=True, stdout=subprocess.DEVNULL)
    settings = Settings("config-drive", "moon", user_data_for(USER, PASSWORD, (KEY,)), (KEY,))
    for name, content in openstack(settings).items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    mkfs = ["mkfs.vfat", "-F", "16", "-n", "config-2", f"--offset={start // 512}", str(disk), str(64 << 10)]
    subprocess.run(mkfs, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mcopy", "-s", "-i", f"{disk}@@{start}", tree / "openstack", "::"], check=True)
    return disk


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_image_starts_as_in_its_environment_and_its_user_logs_in(case: Case, debian_packages: None) -> None:
    """One test for a boot, which takes a minute without KVM; each line says what it is about."""
    person = ordinary_user() if case.rootless else ourselves()
    directory = person.directory(f"environment-{case.name}")
    image = built(case, person, directory)
    ironic = case.name == "ironic"
    disk = deployed_by_ironic(image, directory) if ironic else on_a_larger_disk(image, directory, person)
    (directory / "key.pub").write_text(KEY + "\n")
    told = case.options or ("--hostname", "moon", "--ssh-key", str(directory / "key.pub"))
    words = ("--environment", case.name, "--firmware", case.firmware, *told)
    result, printed = boot(person, disk, USER, COMMANDS, *words)

    assert (result["firmware"], printed["firmware"]) == (case.firmware, case.firmware)
    assert printed["failed"] == "", "failed units"
    assert printed["state"].splitlines()[-1] == "running", "before that cloud-init may talk"
    assert (printed["user"], printed["sudo"]) == (USER, "0")
    assert printed["hostname"].partition(".")[0] == "moon"
    assert "moon" in printed["name"], "the host's own name resolves"
    assert KEY in printed["keys"].splitlines()
    found = json.loads(printed["source"])["v1"]
    assert found["datasource"].split()[0] == case.source
    assert (found["errors"], printed["errors"]) == ([], "")
    assert printed["cloud"] == case.cloud
    assert printed["disk"] == case.disk
    assert f'DRIVERS=="{case.drivers[0]}"' in printed["disk drivers"]
    assert printed["card"] == case.drivers[1]
    assert printed["address"], "the network is up by DHCP"
    assert int(printed["root size"]) > (ROOT_MIB - 100) << 20, "the root file system has grown"
    assert {"root=LABEL=cloudimg-rootfs", case.argument} <= set(printed["arguments"].split())
    assert printed["ssh"] == "active"
    assert printed["host key"] == "/etc/ssh/ssh_host_ed25519_key", "host keys were made at the first boot"
    assert len(printed["machine"]) == 32
    assert printed["audit"] == ""


DOCKERS_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    " AUDIT_WRITE"
)
"""What Docker lets a container do unless told otherwise (docs.docker.com, runtime privilege)."""
CONTAINER = """
set -e
. /etc/os-release; echo "$ID"
test ! -e /boot/vmlinuz-*
log_in() { setpriv --reuid=65534 --regid=65534 --clear-groups su devuser -c 'id -un; sudo -n id -u'; }
echo 'correct horse' | log_in 2> /dev/null
"""
# What the usual slim images of Debian leave out of the same packages, so that ours of the same are not larger.
NOT_IN_SLIM = (
    *("usr/share/doc", "usr/share/groff", "usr/share/info", "usr/share/lintian", "usr/share/linda"),
    *("usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists"),
)


@pytest.mark.skipif(os.getuid() != 0, reason="runc starts a container with all of its users for root alone")
def test_a_container_runs_and_its_user_logs_in(debian_packages: None) -> None:
    person = ourselves()
    directory = person.directory("environment-docker")
    variables = {"DIB_RELEASE": "trixie", "DIB_DEV_USER_PASSWORD": PASSWORD, "DIB_DEV_USER_PWDLESS_SUDO": "1"}
    words = ("build", "--environment", "docker", "-o", "image", "debian-minimal", "devuser")
    person.dibble(*words, cwd=directory, env=person.environment(**variables), timeout=1800)
    person.run(["skopeo", "copy", "--quiet", "docker-archive:image.docker", "oci:layout:image"], cwd=directory)
    person.run(["umoci", "unpack", "--image", "layout:image", "bundle"], cwd=directory)
    settings = json.loads((directory / "bundle/config.json").read_text())
    settings["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", CONTAINER], "noNewPrivileges": False}
    allowed = [f"CAP_{name}" for name in DOCKERS_CAPABILITIES.split()]
    settings["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), allowed)
    del settings["linux"]["resources"]  # this machine's limits are no matter of the image
    (directory / "bundle/config.json").write_text(json.dumps(settings))
    run = ["runc", "run", "--bundle", "bundle", f"dibble-test-{os.getpid()}"]
    assert person.run(run, cwd=directory).stdout.split() == ["debian", "devuser", "0"]
    root = directory / "bundle/rootfs"
    unread = [path for place in NOT_IN_SLIM for path in (root / place).rglob("*") if path.is_file()]
    assert [path for path in unread if path.name not in ("copyright", "lock")] == []


def test_every_shipped_environment_is_here(tmp_path: Path) -> None:
    assert sorted([*(case.name for case in CASES), "docker"]) == preset_names({}, tmp_path)
