"""A root on dm-verity, whose hash stands in a kernel image that the user's key has signed, starts as it was built."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.boot.booted import PASSWORD, boot
from tests.boot.uefi_keys import UefiKey, new_key
from tests.people import ourselves

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

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
        size: 200MiB
        mkfs: {type: vfat, mount: {mount_point: /boot/efi, fstab: {fsck-passno: 0}}}
      - {name: hashes, type: 8301, size: 24MiB}
      - {name: data, type: 8300, size: 100%}
- verity:
    name: sealed
    base: data
    hashes: hashes
    mkfs: {name: mkfs_root, type: erofs, mount: {mount_point: /}}
"""
ELEMENTS = ("debian-minimal", "vm", "block-device-efi", "devuser", "openssh-server", "verity")
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "secure boot": f"od -An -tu1 -j4 {SECURE_BOOT}",
    "root": "findmnt --noheadings --output FSTYPE /",
    "below": "findmnt --noheadings --output TARGET,FSTYPE,OPTIONS --source /dev/mapper/root",
    "device": "sudo veritysetup status root",
    "line": "cat /proc/cmdline",
    "written": "echo kept in memory | sudo tee /etc/written",
    "to the device": "sudo dd if=/dev/zero of=/dev/mapper/root bs=512 count=1 2>&1; true",
}


@pytest.fixture(scope="module")
def person(debian_packages: None) -> Person:
    return ourselves()


@pytest.fixture(scope="module")
def place(person: Person) -> Path:
    return person.directory("boot-verity")


@pytest.fixture(scope="module")
def key(person: Person, place: Path) -> UefiKey:
    return new_key(person, person.cache, place, "ours")


@pytest.fixture(scope="module")
def root_hash(person: Person, place: Path, key: UefiKey) -> str:
    """Of the image, which is built."""
    (place / "layout.yaml").write_text(LAYOUT)
    env = person.environment(
        DIB_BLOCK_DEVICE_CONFIG=(place / "layout.yaml").as_uri(),
        DIB_BOOTLOADER="systemd-boot",
        DIB_DEV_USER_PASSWORD=PASSWORD,
        DIB_DEV_USER_PWDLESS_SUDO="1",
        DIB_GRUB_TIMEOUT="0",
        DIB_RELEASE="trixie",
    )
    words = ("build", "--json", "-o", "image", "-t", "raw", *key.options, *ELEMENTS)
    done = person.dibble(*words, cwd=place, env=env, timeout=1800)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    notes = [event["text"] for event in events if event["event"] == "Note"]
    told = [match[1] for note in notes if (match := re.search(r"root hash of verity \"sealed\" is (\w{64})", note))]
    assert len(told) == 1, notes
    return told[0]


def test_the_root_is_what_the_signed_hash_says(person: Person, place: Path, key: UefiKey, root_hash: str) -> None:
    _, printed = boot(person, place / "image.raw", "devuser", COMMANDS, "--uefi-variables", str(key.variables))
    assert (printed["failed"], printed["state"]) == ("", "running")
    assert printed["secure boot"].strip() == "1"
    assert f"roothash={root_hash} " in printed["line"]
    assert "LABEL=" not in printed["line"], "the root cannot be mistaken for the partition below it"
    assert printed["root"] == "overlay"
    target, kind, options = printed["below"].split()
    assert (target, kind, options.split(",")[0]) == ("/run/verity/root", "erofs", "ro")
    status = dict(line.split(":", 1) for line in printed["device"].splitlines() if ":" in line)
    found = {name.strip(): value.strip() for name, value in status.items()}
    assert (found["type"], found["status"], found["mode"]) == ("VERITY", "verified", "readonly")
    assert found["root hash"] == root_hash
    assert printed["written"] == "kept in memory"
    assert "Operation not permitted" in printed["to the device"] or "Read-only" in printed["to the device"]


def test_one_changed_byte_keeps_the_root_from_starting(
    person: Person, place: Path, key: UefiKey, root_hash: str
) -> None:
    image = place / "image.raw"
    table = json.loads(subprocess.run(["sfdisk", "--json", image], check=True, capture_output=True).stdout)
    data = next(part for part in table["partitiontable"]["partitions"] if part.get("name") == "data")
    with image.open("r+b") as file:
        file.seek(data["start"] * 512 + 100)  # which nothing reads but dm-verity: erofs begins at byte 1024
        file.write(b"\1")
    log = place / "changed.log"
    words = ("boot", image, "--json", "--timeout", "600", "--serial-log", log, "--uefi-variables", key.variables)
    done = person.dibble(*words, check=False, timeout=900)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"] is False
    assert "cannot find the root file system" in result["error"]["message"], result
    assert re.search(r"device-mapper: verity: \S+ data block 0 is corrupted", log.read_text("utf-8", "replace"))
