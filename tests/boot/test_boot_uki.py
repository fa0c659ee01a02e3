"""systemd-boot starts a unified kernel image by UEFI, with Secure Boot by a key of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, ROOT_MIB, boot, grow
from tests.boot.uefi_keys import new_key
from tests.people import ourselves

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

EFI_VARIABLES = "/sys/firmware/efi/efivars"  # four bytes of attributes, then UTF-16
SYSTEMD = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  # the vendor in systemd's Boot Loader Interface
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"  # variables that UEFI itself defines (2.10, 3.3)
COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root size": "findmnt --noheadings --output SIZE --bytes /",
    "line": "cat /proc/cmdline",
    "files": "cd /boot/efi && sudo find . -type f",
    "kernel": "uname -r",
    "grub": "ls /boot/grub /usr/sbin/grub-install",
    "secure boot": f"od -An -tu1 -j4 {EFI_VARIABLES}/SecureBoot-{GLOBAL}",
    "setup mode": f"od -An -tu1 -j4 {EFI_VARIABLES}/SetupMode-{GLOBAL}",
    "lockdown": "cat /sys/kernel/security/lockdown",
    "stub": f"tr -d '\\0-\\17' < {EFI_VARIABLES}/StubInfo-{SYSTEMD}",
    "entry": f"tr -d '\\0-\\17' < {EFI_VARIABLES}/LoaderEntrySelected-{SYSTEMD}",
}


def built(person: Person, directory: Path, *options: str) -> Path:
    env = person.environment(
        DIB_BOOTLOADER="systemd-boot",
        DIB_DEV_USER_PASSWORD=PASSWORD,
        DIB_GRUB_TIMEOUT="0",
        DIB_RELEASE="trixie",
    )
    elements = (str(person.checkout / announced.RECIPE), "debian-minimal", "vm", "block-device-efi", "growroot")
    person.dibble("build", "-o", "image", *options, *elements, cwd=directory, env=env, timeout=1800)
    return directory / "image.qcow2"


def test_systemd_boot_starts_a_kernel_in_one_file_that_the_users_key_has_signed(debian_packages: None) -> None:
    person = ourselves()
    directory = person.directory("boot-uki")
    key = new_key(person, person.cache, directory, "ours")
    image = built(person, directory, *key.options)
    grow(image)
    result, printed = boot(
        person, image, announced.USER, COMMANDS | announced.COMMANDS, "--uefi-variables", str(key.variables)
    )
    announced.check(printed, "Debian")
    assert result["firmware"] == "uefi"
    assert (printed["failed"], printed["state"]) == ("", "running")
    assert int(printed["root size"]) > ROOT_MIB << 20, "the root file system has grown"
    assert printed["line"].startswith("root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200 no_timer_check")
    assert f"./EFI/Linux/debian-{printed['kernel']}.efi" in printed["files"].splitlines()
    assert "./EFI/BOOT/BOOTX64.EFI" in printed["files"].splitlines()
    assert "No such file" in printed["grub"]
    assert (printed["secure boot"].strip(), printed["setup mode"].strip()) == ("1", "0")
    assert "[integrity]" in printed["lockdown"], "the kernel has heard of Secure Boot"
    assert printed["stub"].startswith("systemd-stub ")
    assert printed["entry"] == f"debian-{printed['kernel']}.efi"
