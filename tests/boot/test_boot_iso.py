"""A live system starts from an ISO image in a CD drive, by a BIOS and by UEFI, and keeps what is written in memory."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.boot.booted import PASSWORD, boot

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root": "findmnt --noheadings --output FSTYPE /",
    "medium": "findmnt --noheadings --output SOURCE,FSTYPE /run/live/medium",
    "line": "cat /proc/cmdline",
    "written": "sudo sh -c 'echo written > /etc/written'; cat /etc/written",
    "kernel": "uname -r",
}


@pytest.fixture(scope="module")
def image(ordinary_user: Person) -> Path:
    directory = ordinary_user.directory("boot-iso")
    env = ordinary_user.environment(
        DIB_BOOT_ISO_KERNEL_CMDLINE_ARGS="quiet systemd.show_status=yes",
        DIB_DEV_USER_PASSWORD=PASSWORD,
        DIB_DEV_USER_PWDLESS_SUDO="1",
        DIB_GRUB_TIMEOUT="0",
        DIB_RELEASE="trixie",
    )
    words = ("-t", "iso,vmlinuz,initrd", "-o", "rescue", "debian-minimal", "live-boot", "devuser")
    ordinary_user.dibble("build", *words, cwd=directory, env=env, timeout=1800)
    return directory / "rescue.iso"


def test_the_medium_has_the_kernel_and_its_initramfs(ordinary_user: Person, image: Path) -> None:
    assert image.stat().st_uid == ordinary_user.uid
    for name in ("vmlinuz", "initrd"):
        taken = image.with_name(f"taken-{name}")
        extract = ("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", f"/live/{name}", str(taken))
        subprocess.run(extract, check=True, capture_output=True)
        assert taken.read_bytes() == image.with_suffix(f".{name}").read_bytes()


def test_a_bios_starts_a_live_system_from_a_cd(ordinary_user: Person, image: Path) -> None:
    result, printed = boot(ordinary_user, image, "devuser", COMMANDS)
    assert result["firmware"] == "bios"
    assert (printed["failed"], printed["state"]) == ("", "running")
    assert printed["root"] == "overlay"
    assert printed["medium"].split() == ["/dev/sr0", "iso9660"]
    assert printed["line"].endswith("boot=live console=tty0 console=ttyS0,115200 quiet systemd.show_status=yes")
    assert printed["written"] == "written"


def test_uefi_starts_the_same_system_from_the_same_cd(ordinary_user: Person, image: Path) -> None:
    # With this systemd greets when it has begun with the tree of the squashfs as its root; the rest is as above.
    words = ("--firmware", "uefi", "--marker", "Welcome to Debian", "--timeout", "900", "--json")
    done = ordinary_user.dibble("boot", image, *words, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["ok"], result["error"], result["firmware"]) == (True, None, "uefi")
