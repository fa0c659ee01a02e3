"""Programs for UEFI are signed by the user's key, which is left nowhere; firmware refuses what it has not signed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.boot.uefi_keys import UefiKey, new_key
from tests.build.small_elements import SmallElements, ran
from tests.inside import with_tools

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from tests.people import Person

    from dibble.sandbox.toolbox import Toolbox

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware is amd64's"),
]

ESP_OFFSET = 1 << 20  # bytes; where the first partition of a disk begins
LAYOUT = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - name: ESP
        type: EF00
        size: 40MiB
        mkfs: {type: vfat, mount: {mount_point: /boot/efi}}
      - name: root
        size: 100%
        mkfs: {type: ext4, mount: {mount_point: /}}
"""
# A small PE program stands for the kernel.
KERNEL = """
mkdir -p "$TARGET_ROOT"/boot "$TARGET_ROOT"/etc/kernel
grub-mkimage -O x86_64-efi -p / -o "$TARGET_ROOT"/boot/vmlinuz-1.0 normal
echo initrd > "$TARGET_ROOT"/boot/initrd.img-1.0
echo root=LABEL=none > "$TARGET_ROOT"/etc/kernel/cmdline
"""
PROGRAMS = ("EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi", "EFI/Linux/linux-1.0.efi")


def programs_of(image: Path) -> dict[str, bytes]:
    """What the EFI system partition of a raw disk has of `PROGRAMS`."""
    disk = f"{image}@@{ESP_OFFSET}"
    copies = {name: ["mcopy", "-n", "-i", disk, f"::{name}", "-"] for name in PROGRAMS}
    return {name: subprocess.run(copy, check=True, capture_output=True).stdout for name, copy in copies.items()}


def signers(programs: dict[str, bytes], keys: dict[str, UefiKey], cache: Path) -> dict[str, list[str]]:
    """Whose signature sbverify, which is not what signs, finds on each program."""
    certificates = {name: key.certificate.read_bytes() for name, key in keys.items()}

    def verify(toolbox: Toolbox, directory: Path) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        program, certificate = directory / "program", directory / "certificate"
        for name, content in programs.items():
            program.write_bytes(content)
            found[name] = []
            for owner, text in certificates.items():
                certificate.write_bytes(text)
                argv = ["sbverify", "--cert", toolbox.path(certificate), toolbox.path(program)]
                if toolbox.run(argv, check=False).status == 0:
                    found[name].append(owner)
        return found

    return with_tools(cache, verify, "uki")


def files_with(places: list[Path], texts: list[bytes], since: float) -> list[Path]:
    """The files below some directories, changed since a moment, that hold one of the texts."""
    found = []
    for place in places:
        for folder, _, names in os.walk(place):
            for path in (Path(folder, name) for name in names):
                if path.is_symlink() or not path.is_file() or path.stat().st_ctime < since:
                    continue
                content = path.read_bytes()
                found += [path for text in texts if text in content]
    return found


def test_programs_are_signed_by_a_key_that_is_left_nowhere_and_firmware_refuses_the_others(
    ordinary_user: Person, test_cache: Path
) -> None:
    began = time.time() - 1
    place = ordinary_user.directory("secure-boot")
    elements = SmallElements(ordinary_user, place)
    elements.script("small/root.d/20-kernel", KERNEL)
    elements.script("small/cleanup.d/10-look", "export")
    layout = elements.write("../layout.yaml", LAYOUT)
    keys = {name: new_key(ordinary_user, test_cache, place, name) for name in ("ours", "other")}
    image = place / "image.raw"
    variables: dict[str, Any] = {"DIB_BLOCK_DEVICE_CONFIG": layout.as_uri(), "DIB_BOOTLOADER": "systemd-boot"}
    words = ("-t", "raw", "-o", "image", "small")

    def refused(with_variables: Path) -> None:
        argv = ("boot", image, "--json", "--uefi-variables", with_variables)
        done = ordinary_user.dibble(*argv, cwd=place, check=False, timeout=600)
        result = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, result["ok"], result["firmware"]) == (1, False, "uefi")
        assert "none of its keys for Secure Boot has signed it" in result["error"]["message"], done.stdout

    files = {"DIB_SECURE_BOOT_KEY": keys["other"].key.name, "DIB_SECURE_BOOT_CERT": keys["ours"].certificate.name}
    events = elements.build(*words, check=False, **variables, **files)
    assert (events[-1]["event"], events[-1]["status"]) == ("Failed", 2)
    assert "other.key and the certificate of --secure-boot-cert make no signature together" in events[-1]["message"]
    assert not image.exists()
    printed = "".join(event["text"] for event in events if event["event"] == "OutputLine")
    assert "DIB_BOOTLOADER" in printed
    assert "SECURE_BOOT" not in printed

    assert not ran(elements.build(*words, *keys["ours"].options, **variables))
    signed = image.read_bytes()
    ours = programs_of(image)
    assert signers(ours, keys, test_cache) == {name: ["ours"] for name in PROGRAMS}
    lines = keys["ours"].key.read_text().splitlines()
    refused(keys["other"].variables)

    assert not ran(elements.build(*words, *keys["other"].options, **variables)), "a key decides about outputs alone"
    assert signers(programs_of(image), keys, test_cache) == {name: ["other"] for name in PROGRAMS}
    assert not ran(elements.build(*words, **variables))
    plain = programs_of(image)
    assert signers(plain, keys, test_cache) == {name: [] for name in PROGRAMS}
    refused(keys["ours"].variables)

    assert not ran(elements.build(*words, *keys["ours"].options, **variables))
    assert image.read_bytes() == signed, "and it does so always in the same way"
    der = subprocess.run(
        ["openssl", "rsa", "-in", keys["ours"].key, "-outform", "DER"], check=True, capture_output=True
    ).stdout
    private = der[300:332]  # behind the modulus (256 bytes) and what is before it, both public
    secret = [lines[len(lines) // 2].encode(), private]
    assert files_with([place, ordinary_user.cache], secret, began) == [keys["ours"].key]
