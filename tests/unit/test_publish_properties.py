"""What a cloud is told of an image is derived from the image, and from what its build left in the store."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dibble.disk.model import Graph, Partition, Table
from dibble.errors import UsageError
from dibble.events import Events
from dibble.publish.base import Properties, Publication, PublishError
from dibble.publish.openstack import description
from dibble.publish.progress import Progress, progress_of
from dibble.publish.properties import properties_of
from dibble.publish.s3 import part_size
from dibble.run.image_facts import firmware, os_release
from dibble.store.facts import Facts
from dibble.store.image_fact import recall_image, remember_image
from dibble.store.places import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit


@pytest.fixture
def progress(tmp_path: Path) -> Iterator[Progress]:
    with progress_of(tmp_path / "progress", Path("image"), "s3://a/b", "1") as found:
        yield found


def test_an_image_is_known_again_after_it_was_moved_and_not_when_it_was_changed(tmp_path: Path) -> None:
    facts = Facts(Store(tmp_path / "store"))
    image = tmp_path / "image.raw"
    image.write_bytes(b"moon" * 1000)
    remember_image(facts, image, {"arch": "arm64"})
    moved = image.rename(tmp_path / "other.raw")
    assert recall_image(facts, moved) == {"arch": "arm64"}
    moved.write_bytes(b"sun" * 1000)
    assert recall_image(facts, moved) == {}


def test_a_qcow2_tells_the_size_of_its_disk_and_the_build_the_rest(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    image.write_bytes(b"QFI\xfb" + struct.pack(">IQIIQ", 3, 0, 0, 16, (2 << 30) + 1) + bytes(512))
    found = properties_of(image, {"arch": "arm64", "firmware": "uefi", "distro": "debian", "disk_bus": "virtio"})
    assert found == Properties("arm64", "uefi", "qcow2", (2 << 30) + 1, "virtio", distro="debian")
    assert found.min_disk_gib == 3


def test_a_packed_image_is_refused_with_the_command_that_unpacks_it(tmp_path: Path) -> None:
    image = tmp_path / "image.gz"
    image.write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(UsageError) as caught:
        properties_of(image, {})
    assert "gunzip" in caught.value.hint


def _tar() -> bytes:
    return tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("moon.tar", _tar(), "tar"),
        ("moon.docker", _tar(), "docker"),
        ("moon.oci", _tar(), "oci"),
        ("moon.ova", _tar(), "ova"),
        ("moon.tar.gz", b"\x1f\x8b\x08", "tar.gz"),
        ("moon.tgz", b"\x1f\x8b\x08", "tgz"),
        ("moon.tar.xz", b"\xfd7zXZ\0", "tar.xz"),
        ("moon.tar.zst", b"\x28\xb5\x2f\xfd", "tar.zst"),
        ("moon.squash", b"hsqs", "squashfs"),
        ("moon.iso", bytes(0x8001) + b"CD001", "iso"),
        ("moon.erofs", bytes(1024) + b"\xe2\xe1\xf5\xe0", "erofs"),
        ("moon", b"moon", "raw"),
    ],
)
def test_each_format_of_the_tree_is_known_by_its_content_and_name(
    tmp_path: Path, name: str, head: bytes, expected: str
) -> None:
    image = tmp_path / name
    image.write_bytes(head + bytes(2048))
    assert properties_of(image, {}).format == expected


@pytest.mark.parametrize("form", ["docker", "erofs", "ova", "squashfs", "tar", "tar.xz", "tgz"])
def test_what_the_build_knows_of_a_format_counts_more_than_the_name(tmp_path: Path, form: str) -> None:
    image = tmp_path / "renamed"
    image.write_bytes(b"\x1f\x8b" + bytes(600))
    found = properties_of(image, {"format": form, "arch": "amd64"})
    assert (found.format, found.virtual_size) == (form, 602)


@pytest.mark.parametrize(
    ("label", "types", "expected"),
    [
        ("gpt", ("EF00", "EF02", "8300"), "both"),
        ("gpt", ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "8300"), "uefi"),
        ("gpt", ("EF02", "8300"), "bios"),
        ("mbr", ("0x83",), "bios"),
    ],
)
def test_the_firmware_follows_from_the_boot_partitions(label: Any, types: tuple[str, ...], expected: str) -> None:
    parts = tuple(Partition(f"p{number}", number + 1, kind, None) for number, kind in enumerate(types))
    table = Table("table", "image0", label, parts)
    assert firmware(Graph((), (table,), (), (), ())) == expected
    assert firmware(Graph((), (), (), (), ())) == ""


def test_the_distribution_is_that_of_os_release() -> None:
    text = 'PRETTY_NAME="A moon"\nID=debian\nVERSION_ID="13"\nBUILD_ID=x\n'
    assert os_release(text) == {"ID": "debian", "VERSION_ID": "13"}


def test_glance_is_told_devices_in_its_own_words_and_the_user_counts_more(progress: Progress) -> None:
    known = Properties("arm64", "uefi", "qcow2", 5 << 30, "pvscsi", "vmxnet3", "debian", "13", 512)
    publication = Publication(
        Path("/image.qcow2"), "moon", "", known, progress, Events(), {}, Path("/"), {"visibility": "public"}
    )
    assert description(publication) == {
        "name": "moon", "disk_format": "qcow2", "container_format": "bare", "visibility": "public", "min_disk": 5,
        "min_ram": 512, "architecture": "aarch64", "hw_firmware_type": "uefi", "hw_disk_bus": "scsi",
        "hw_scsi_model": "vmpvscsi", "hw_vif_model": "vmxnet3", "os_distro": "debian", "os_version": "13",
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 16 << 20, 160_000 << 20, (5 << 40) - 1])
def test_an_object_has_never_more_parts_than_s3_allows(size: int) -> None:
    assert -(-size // part_size(size)) <= 10_000
    assert part_size(size) % (1 << 20) == 0


def test_progress_is_found_again_without_what_a_crash_cut_off(tmp_path: Path) -> None:
    def opened(mark: str = "1") -> Any:
        return progress_of(tmp_path, Path("image"), "ec2", mark)

    with opened() as progress:
        progress.begin(snapshot="snap-1")
        progress.add("7")
        progress.add("12")
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text() + "13")
    with opened() as progress:
        assert progress.upload == {"snapshot": "snap-1"}
        assert progress.done == {"7", "12"}
        progress.add("42")
        with pytest.raises(PublishError, match="another process"), opened():
            pass
    with opened() as progress:
        assert progress.done == {"7", "12", "42"}
    with opened("2") as progress:
        assert progress.upload == {}
    with opened() as progress:
        progress.finish()
    with opened() as progress:
        assert progress.done == set()
