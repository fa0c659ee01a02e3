"""The main job: `dibble build debian-minimal vm` as root and as an ordinary user, looked at with other programs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.people import ordinary_user, ourselves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

MIB = 1 << 20
WHO: dict[str, Callable[[], Person]] = {"ourselves": ourselves, "an ordinary user": ordinary_user}


@dataclass(frozen=True)
class Built:
    """One build: where it ran, what it printed (as events), and its raw disk."""

    person: Person
    directory: Path
    events: list[dict[str, object]]

    def of_kind(self, kind: str) -> list[dict[str, object]]:
        return [event for event in self.events if event["event"] == kind]


def build(person: Person, directory: Path, *arguments: str, check: bool = True, **variables: str) -> Built:
    env = person.environment(**variables)
    done = person.dibble("build", "--json", *arguments, cwd=directory, env=env, check=check, timeout=1800)
    return Built(person, directory, [json.loads(line) for line in done.stdout.splitlines()])


@pytest.fixture(scope="module", params=list(WHO))
def built(request: pytest.FixtureRequest, debian_packages: None) -> Built:
    person = WHO[request.param]()
    directory = person.directory("main-job")
    return build(person, directory, "-t", "qcow2,raw,tar", "--checksum", "debian-minimal", "vm")


@pytest.fixture(scope="module")
def raw(built: Built) -> Path:
    return built.directory / "debian-minimal-vm.raw"


@pytest.fixture(scope="module")
def root_file_system(raw: Path) -> Iterator[Path]:
    """The root partition alone."""
    table = json.loads(run("sfdisk", "--json", raw))["partitiontable"]
    partition = table["partitions"][0]
    path = raw.with_suffix(".ext4")
    with raw.open("rb") as source, path.open("wb") as target:
        source.seek(partition["start"] * 512)
        left = partition["size"] * 512
        target.truncate(left)
        position = 0
        while position < left:
            chunk = source.read(min(MIB, left - position))
            if chunk.count(0) != len(chunk):
                target.seek(position)
                target.write(chunk)
            position += len(chunk)
    yield path
    path.unlink()


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], check=False, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


def in_root(root_file_system: Path, request: str) -> str:
    return run("debugfs", "-R", request, root_file_system)


def test_every_file_is_there_and_the_users(built: Built) -> None:
    names = {path.name for path in built.directory.iterdir()}
    for suffix in ("qcow2", "raw", "tar"):
        for end in ("", ".md5", ".sha256"):
            assert f"debian-minimal-vm.{suffix}{end}" in names
    assert "debian-minimal-vm.d" in names
    for path in built.directory.rglob("*"):
        assert path.stat().st_uid == built.person.uid, path
    assert not [name for name in names if name.startswith(".")]


def test_checksums_verify(built: Built) -> None:
    for name in ("qcow2", "tar"):
        path = built.directory / f"debian-minimal-vm.{name}"
        line = path.with_name(path.name + ".sha256").read_text().split()
        assert line == [hashlib.sha256(path.read_bytes()).hexdigest(), path.name]


def test_the_events_tell_steps_and_artifacts(built: Built) -> None:
    (started,) = built.of_kind("BuildStarted")
    assert started["requested"] == ["debian-minimal", "vm"]
    elements = started["elements"]
    assert isinstance(elements, list)
    assert {"base", "debootstrap", "bootloader", "block-device-mbr"} <= set(elements)
    formats = [event["format"] for event in built.of_kind("ArtifactWritten")]
    assert sorted(map(str, formats)) == ["qcow2", "raw", "tar"]  # whichever is ready first
    (finished,) = built.of_kind("BuildFinished")
    assert finished["status"] == 0


def test_the_qcow2_is_sound_and_equals_the_raw_disk(built: Built, raw: Path) -> None:
    qcow2 = built.directory / "debian-minimal-vm.qcow2"
    run("qemu-img", "check", qcow2)
    run("qemu-img", "compare", qcow2, raw)
    info = json.loads(run("qemu-img", "info", "--output=json", qcow2))
    assert info["format-specific"]["data"]["compression-type"] == "zstd"
    assert qcow2.stat().st_size < raw.stat().st_size / 2


def test_the_raw_disk_is_sparse(raw: Path) -> None:
    assert raw.stat().st_blocks * 512 < raw.stat().st_size * 0.8


def test_the_partition_table_is_sound(raw: Path) -> None:
    run("sfdisk", "--verify", raw)
    table = json.loads(run("sfdisk", "--json", raw))["partitiontable"]
    assert table["label"] == "dos"
    (root,) = table["partitions"]
    assert root["start"] == 2048
    assert root["type"] == "83"
    assert root["bootable"]


def test_the_file_system_is_sound_and_has_its_label(root_file_system: Path) -> None:
    run("e2fsck", "-fn", root_file_system)
    header = run("dumpe2fs", "-h", root_file_system)
    assert "cloudimg-rootfs" in header
    # GRUB before 2.12 and e2fsck before 1.47 must be able to read it.
    assert "metadata_csum_seed" not in header
    assert "orphan_file" not in header


def test_fstab_names_the_root_by_its_label(root_file_system: Path) -> None:
    lines = [line.split() for line in in_root(root_file_system, "cat /etc/fstab").splitlines() if line[:1] != "#"]
    assert lines == [["LABEL=cloudimg-rootfs", "/", "ext4", "defaults", "0", "1"]]


def test_the_boot_menu_has_kernel_initramfs_and_serial_console(root_file_system: Path) -> None:
    menu = in_root(root_file_system, "cat /boot/grub/grub.cfg")
    assert "console=ttyS0,115200" in menu
    assert "root=LABEL=cloudimg-rootfs" in menu
    assert "/boot/vmlinuz-" in menu
    assert "/boot/initrd.img-" in menu


def test_nothing_of_the_build_is_left_in_the_image(built: Built) -> None:
    names = run("tar", "tf", built.directory / "debian-minimal-vm.tar").splitlines()
    empty = ("./tmp/", "./var/tmp/", "./usr/local/bin/", "./var/lib/apt/lists/partial/")
    left = [name for name in names if name.startswith(empty) and name not in empty]
    assert left == []
    ours = [name for name in names if "dibble" in name or "in_target" in name]
    assert ours == []
    assert "./etc/resolv.conf.ORIG" not in names
    assert not [name for name in names if name.endswith((".dpkg-new", ".dpkg-tmp"))]
    assert "./etc/machine-id" in names


def test_the_manifests_stand_beside_the_image(built: Built) -> None:
    folder = built.directory / "debian-minimal-vm.d" / "dib-manifests"
    (packages,) = folder.glob("dib-manifest-dpkg-*")
    listed = json.loads(packages.read_text())["packages"]
    names = {package["package"] for package in listed}
    assert {"systemd", "dpkg", "libc6"} <= names
    assert (folder / "dib_arguments").exists()


def test_dpkg_finds_nothing_wrong(built: Built, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("unpacking an image with its owners needs root")
    root = tmp_path / "root"
    root.mkdir()
    run("tar", "--numeric-owner", "--xattrs", "-xf", built.directory / "debian-minimal-vm.tar", "-C", root)
    audit = run("chroot", root, "dpkg", "--audit")
    assert audit == ""
    verify = run("chroot", root, "dpkg", "--verify")
    # Elements change these on purpose.
    explained = ("/etc/default/grub", "/etc/ssh/sshd_config", "/etc/hosts", "/etc/hostname")
    assert [line for line in verify.splitlines() if not line.endswith(explained)] == []


def test_a_repeated_build_runs_nothing_and_says_so(built: Built) -> None:
    again = build(built.person, built.directory, "-t", "qcow2,raw,tar", "--checksum", "debian-minimal", "vm")
    assert again.of_kind("StepStarted") == []
    assert again.of_kind("OutputLine") == []
    notes = [str(event["text"]) for event in again.of_kind("Note")]
    assert any("nothing has changed" in note for note in notes)
    older = [path.name for path in built.directory.glob("debian-minimal-vm-*.qcow2")]
    assert len(older) == 1, "the image of before was renamed"
    first = built.directory / older[0]
    assert first.read_bytes() == (built.directory / "debian-minimal-vm.qcow2").read_bytes()


def test_the_same_image_comes_out_for_root_and_for_an_ordinary_user(debian_packages: None) -> None:
    digests = []
    for who in WHO.values():
        person = who()
        directory = person.directory("same-bytes")
        build(person, directory, "-t", "raw", "-o", "same", "debian-minimal", "vm")
        digests.append(hashlib.sha256((directory / "same.raw").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("layout", ["gpt", "efi"])
def test_gpt_disks_are_sound(layout: str, debian_packages: None) -> None:
    person = ourselves()
    directory = person.directory(f"disk-{layout}")
    build(person, directory, "-t", "raw", "-o", "disk", "debian-minimal", "vm", f"block-device-{layout}")
    raw = directory / "disk.raw"
    run("sfdisk", "--verify", raw)
    assert "No problems found" in run("sgdisk", "--verify", raw)
    partitions = json.loads(run("sfdisk", "--json", raw))["partitiontable"]["partitions"]
    names = [partition["name"] for partition in partitions]
    assert names == (["BSP", "root"] if layout == "gpt" else ["ESP", "BSP", "root"])
    for partition in partitions:
        part = directory / f"{partition['name']}.part"
        with raw.open("rb") as source, part.open("wb") as target:
            source.seek(partition["start"] * 512)
            for _ in range(partition["size"] // 2048):
                target.write(source.read(MIB))
        if partition["name"] == "root":
            run("e2fsck", "-fn", part)
        if partition["name"] == "ESP":
            run("fsck.vfat", "-n", part)
            assert "BOOTX64" in run("mdir", "-b", "-i", part, "::/EFI/BOOT").upper()
            assert "grubx64.efi" in run("mdir", "-b", "-i", part, "::/EFI/debian")
        part.unlink()
    assert ("LABEL=MKFS_ESP /boot/efi vfat" in fstab_of(directory, partitions)) is (layout == "efi")


def fstab_of(directory: Path, partitions: list[dict[str, int]]) -> str:
    """The text of /etc/fstab on the last partition, fields separated by one blank."""
    offset = partitions[-1]["start"] * 512
    text = run("debugfs", "-R", "cat /etc/fstab", f"{directory}/disk.raw?offset={offset}")
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
