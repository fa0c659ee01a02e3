"""Elements of distributions on what can be reached: those for any Debian on Debian, Ubuntu's on a mirror of Debian."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from dissect.volume import lvm as dissect_lvm
from dissect.volume.disk import Disk as DissectDisk
from tests.build.small_elements import BASE, SmallElements

from dibble.packages.debian_sources import host_mirrors

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build


def text_of(archive: tarfile.TarFile, name: str) -> str:
    file = archive.extractfile(name)
    assert file is not None
    return file.read().decode()


def initramfs_of(archive: tarfile.TarFile) -> bytes:
    """The archive (cpio) in the initramfs of the only kernel, decompressed; an uncompressed one may stand before it."""
    (name,) = (name for name in archive.getnames() if name.startswith("./boot/initrd.img-"))
    file = archive.extractfile(name)
    assert file is not None
    data = file.read()
    start = data.index(b"\x28\xb5\x2f\xfd")  # RFC 8878, 3.1.1
    with zstandard.ZstdDecompressor().stream_reader(data[start:]) as reader:
        return reader.read()


def test_a_disk_with_large_sectors_boots_from_volumes_as_the_initramfs_has_lvm(ordinary_user: Person) -> None:
    place = ordinary_user.directory("distribution-elements")
    words = ["-t", "raw,tar", "-o", "disk", "debian-minimal", "vm", "block-device-efi-4k", "lvm", "epel"]
    ordinary_user.dibble("build", *words, cwd=place)
    with (place / "disk.raw").open("rb") as disk:
        disk.seek(4096)  # the second sector; UEFI 2.10, 5.3.2
        assert disk.read(8) == b"EFI PART"
    with tarfile.open(place / "disk.tar") as archive:
        assert "dm-thin-pool" in text_of(archive, "./etc/initramfs-tools/modules").split()
        assert "lvm" in text_of(archive, "./etc/default/grub.d/60-lvm.cfg")
        assert b"usr/sbin/lvm" in initramfs_of(archive)


def test_a_disk_of_volumes_has_what_the_firmware_reads_beside_them(ordinary_user: Person) -> None:
    small = SmallElements(ordinary_user, ordinary_user.directory("distribution-elements-volumes"))
    small.script("folders/root.d/20-folders", 'mkdir -p "$TARGET_ROOT"/{boot/efi,home}')
    words = ("-n", "-t", "raw,tar", "-o", "disk", "small", "folders", "block-device-efi-lvm")
    small.run("build", *words, DIB_IMAGE_SIZE="41")
    with tarfile.open(small.place / "disk.tar") as archive:
        mounts = [line.split()[1:3] for line in text_of(archive, "./etc/fstab").splitlines() if line[:1] not in "#"]
    assert sorted(mounts) == [["/", "xfs"], ["/boot/efi", "vfat"], ["/home", "xfs"], ["/var", "xfs"]]
    disk = small.place / "disk.raw"
    with disk.open("rb") as file:
        third = next(entry for entry in DissectDisk(file).partitions if entry.number == 3)
        starts = {volume.name: volume.open().read(4) for volume in dissect_lvm.LVM2([third.open()]).vg.lv}
    assert starts == dict.fromkeys(("lv_root", "lv_var", "lv_home"), b"XFSB")
    assert disk.stat().st_blocks * 512 < 1 << 30, "sparse"


@pytest.fixture
def as_ubuntu(ordinary_user: Person) -> dict[str, str]:
    """The environment for Ubuntu's elements with Debian's packages: the oldest release that its kernel's name fits."""
    return ordinary_user.environment(
        DIB_RELEASE="bookworm",
        DIB_DISTRIBUTION_MIRROR=host_mirrors().archive,
        DIB_DEBIAN_COMPONENTS="main",
        DIB_UBUNTU_MIRROR_DISTS="updates",
        DIB_UBUNTU_KERNEL="linux-image-cloud-amd64",
        DIB_APT_KEYRING="/usr/share/keyrings/debian-archive-keyring.gpg",
    )


@pytest.mark.parametrize(("element", "kernel"), [("ubuntu-minimal", True), ("ubuntu-systemd-container", False)])
def test_an_ubuntu_of_packages_has_its_sources_and_what_it_boots_with(
    ordinary_user: Person, as_ubuntu: dict[str, str], element: str, kernel: bool
) -> None:
    place: Path = ordinary_user.directory(f"distribution-elements-{element}")
    ordinary_user.dibble("build", "-t", "tar", "-o", "image", element, cwd=place, env=as_ubuntu)
    with tarfile.open(place / "image.tar") as archive:
        names = archive.getnames()
        mirror = as_ubuntu["DIB_DISTRIBUTION_MIRROR"]
        assert text_of(archive, "./etc/apt/sources.list").splitlines() == [
            f"deb {mirror} bookworm main",
            f"deb {mirror} bookworm-updates main",
        ]
        assert text_of(archive, "./etc/sysctl.d/10-ipv6-privacy.conf").count("use_tempaddr = 0") == 2
        assert any(name.startswith("./boot/vmlinuz-") for name in names) is kernel
        assert any(name.startswith("./boot/initrd.img-") for name in names) is kernel
        assert "./.extra_settings" not in names
        assert "./usr/lib/systemd/systemd" in names
        masked = [m.name for m in archive.getmembers() if m.issym() and m.linkname == "/dev/null"]
        assert ("./etc/systemd/system/systemd-udevd.service" in masked) is not kernel


def test_a_package_manager_that_there_is_not_is_told_where_it_is_asked_for(ordinary_user: Person) -> None:
    small = SmallElements(ordinary_user, ordinary_user.directory("distribution-elements-other"))
    small.write("other/element-provides", "operating-system\n")
    small.script("other/root.d/10-other", "dib-engine bootstrap pigeons --suite stable")
    done = small.run("build", *BASE, "other", check=False)
    assert done.returncode == 1
    assert "root.d/10-other:3, element other" in done.stderr
    assert 'no package manager "pigeons" that could begin a system, only apt' in done.stderr
