"""Images boot: by BIOS from MBR and GPT, and by UEFI; a user logs in over the serial line and finds all well."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.people import ordinary_user, ourselves

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

PASSWORD = "correct horse"
ROOT_MIB = 3500  # the disk is made larger than the image before it boots
COMMANDS = {
    "name": 'getent hosts "$(hostname)"',
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root size": "findmnt --noheadings --output SIZE --bytes /",
    "firmware": "test -d /sys/firmware/efi && echo uefi || echo bios",
    "root by": "grep -o 'root=[^ ]*' /proc/cmdline",
    # An interface that is plugged in is set up beside the boot, which does not wait for it.
    "address": "timeout 90 sh -c 'until ip -4 -o address show scope global | grep .; do sleep 1; done'",
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
    subprocess.run(["qemu-img", "resize", "-q", image, "5G"], check=True)
    return image


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def booted(request: pytest.FixtureRequest, debian_packages: None) -> tuple[Case, dict[str, Any]]:
    """What `dibble boot` said of a case, and what each command printed."""
    case: Case = request.param
    image = image_of(case)
    person = ordinary_user() if case.rootless else ourselves()
    words: list[str] = []
    for command in COMMANDS.values():
        words += ["--command", command]
    log = image.with_name("serial.log")
    done = person.dibble(
        *("boot", image, "--firmware", case.firmware, "--json", "--timeout", "900", "--serial-log", log),
        *("--login", "devuser", "--password", PASSWORD, *words),
        check=False,
        timeout=2400,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    result: dict[str, Any] = json.loads(lines[-1])
    assert result["error"] is None, f"{result['error']}\n{done.stderr[-2000:]}\n{log.read_text()[-4000:]}"
    return case, result


def output(booted: tuple[Case, dict[str, Any]], name: str) -> str:
    command = COMMANDS[name]
    found = next(entry for entry in booted[1]["commands"] if entry["command"] == command)
    return str(found["output"])


def test_all_is_well_in_the_guest(booted: tuple[Case, dict[str, Any]]) -> None:
    """One test for a boot, which takes a minute without KVM; each line says what it is about."""
    case, result = booted
    assert result["firmware"] == case.firmware
    assert output(booted, "firmware") == case.firmware
    assert output(booted, "failed") == "", "failed units"
    assert output(booted, "state") == "running"
    assert "debian" in output(booted, "name"), "the host's own name resolves"
    assert int(output(booted, "root size")) > ROOT_MIB << 20, "the root file system has grown"
    assert output(booted, "root by") == "root=LABEL=cloudimg-rootfs"
    assert "10.0.2.15" in output(booted, "address"), "the network is up by DHCP"
    assert output(booted, "sudo") == "0"
    assert output(booted, "ssh") == "active"
    assert output(booted, "keys") == "/etc/ssh/ssh_host_ed25519_key", "host keys were made at the first boot"
    assert len(output(booted, "machine")) == 32
    assert output(booted, "audit") == ""
    assert result["ok"] is True or output(booted, "audit") == ""
