"""Images boot: by BIOS from MBR and GPT, and by UEFI; a user logs in over the serial line and finds all well."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.boot.booted import ADDRESS, PASSWORD, ROOT_MIB, boot, grow
from tests.people import ordinary_user, ourselves

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

COMMANDS = {
    "name": 'getent hosts "$(hostname)"',
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root size": "findmnt --noheadings --output SIZE --bytes /",
    "firmware": "test -d /sys/firmware/efi && echo uefi || echo bios",
    "root by": "grep -o 'root=[^ ]*' /proc/cmdline",
    "address": ADDRESS,
    "sudo": "sudo -n id -u",
    "ssh": "systemctl is-active ssh",
    "keys": "ls /etc/ssh/ssh_host_ed25519_key",
    "machine": "cat /etc/machine-id",
    "audit": "dpkg --audit",
}


@dataclass(frozen=True)
class Case:
    """One image: its elements besides `debian-minimal vm`, who builds it, and the firmware that starts it."""

    name: str
    firmware: str
    rootless: bool
    elements: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


CASES = [
    Case("mbr-bios", "bios", True),
    Case("gpt-bios", "bios", False, ("block-device-gpt", "cloud-init", "cloud-init-nocloud")),
    Case("efi-uefi", "uefi", True, ("block-device-efi",)),
    Case("bookworm", "bios", False, (), (("DIB_RELEASE", "bookworm"),)),
]


def image_of(case: Case) -> Path:
    """The image of a case, its disk made larger, as a user would before starting it."""
    person = ordinary_user() if case.rootless else ourselves()
    directory = person.directory(f"boot-{case.name}")
    variables = {"DIB_RELEASE": "trixie", **dict(case.variables)}
    env = person.environment(DIB_DEV_USER_PASSWORD=PASSWORD, DIB_DEV_USER_PWDLESS_SUDO="1", **variables)
    elements = ["debian-minimal", "vm", "devuser", "openssh-server", "growroot", *case.elements]
    person.dibble("build", "-o", "image", *elements, cwd=directory, env=env, timeout=1800)
    image = directory / "image.qcow2"
    subprocess.run(["qemu-img", "check", "-q", image], check=True)
    grow(image)
    return image


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def booted(request: pytest.FixtureRequest, debian_packages: None) -> tuple[Case, dict[str, Any], dict[str, str]]:
    """A case, what `dibble boot` said of it, and what each command printed."""
    case: Case = request.param
    image = image_of(case)
    person = ordinary_user() if case.rootless else ourselves()
    return (case, *boot(person, image, "devuser", COMMANDS, "--firmware", case.firmware))


def test_all_is_well_in_the_guest(booted: tuple[Case, dict[str, Any], dict[str, str]]) -> None:
    """One test for a boot, which takes a minute without KVM; each line says what it is about."""
    case, result, output = booted
    assert result["firmware"] == case.firmware
    assert output["firmware"] == case.firmware
    assert output["failed"] == "", "failed units"
    assert output["state"] == "running"
    assert "debian" in output["name"], "the host's own name resolves"
    assert int(output["root size"]) > ROOT_MIB << 20, "the root file system has grown"
    assert output["root by"] == "root=LABEL=cloudimg-rootfs"
    assert "10.0.2.15" in output["address"], "the network is up by DHCP"
    assert output["sudo"] == "0"
    assert output["ssh"] == "active"
    assert output["keys"] == "/etc/ssh/ssh_host_ed25519_key", "host keys were made at the first boot"
    assert len(output["machine"]) == 32
    assert output["audit"] == ""
    assert result["ok"] is True or output["audit"] == ""
