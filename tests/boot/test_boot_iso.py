"""A live system starts from an ISO image in a CD drive, by a BIOS, and keeps what is written in memory."""

from __future__ import annotations

import subprocess

import pytest
from tests.boot.booted import PASSWORD, boot
from tests.people import ordinary_user

from dibble.sandbox.tools import host_arch

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


def test_a_bios_starts_a_live_system_from_a_cd(debian_packages: None) -> None:
    person = ordinary_user()
    directory = person.directory("boot-iso")
    env = person.environment(
        DIB_BOOT_ISO_KERNEL_CMDLINE_ARGS="quiet",
        DIB_DEV_USER_PASSWORD=PASSWORD,
        DIB_DEV_USER_PWDLESS_SUDO="1",
        DIB_GRUB_TIMEOUT="0",
        DIB_RELEASE="trixie",
    )
    words = ("-t", "iso,vmlinuz,initrd", "-o", "rescue", "debian-minimal", "live-boot", "devuser")
    person.dibble("build", *words, cwd=directory, env=env, timeout=1800)
    image = directory / "rescue.iso"
    assert image.stat().st_uid == person.uid
    for name, file in (("vmlinuz", "vmlinuz"), ("initrd", "initrd")):
        taken = directory / f"taken-{name}"
        extract = ("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", f"/live/{name}", str(taken))
        subprocess.run(extract, check=True, capture_output=True)
        assert taken.read_bytes() == (directory / f"rescue.{file}").read_bytes()
    result, printed = boot(person, image, "devuser", COMMANDS)
    assert result["firmware"] == "bios"
    assert (printed["failed"], printed["state"]) == ("", "running")
    assert printed["root"] == "overlay"
    assert printed["medium"].split() == ["/dev/sr0", "iso9660"]
    assert printed["line"].endswith("boot=live console=tty0 console=ttyS0,115200 quiet")
    assert printed["written"] == "written"
