"""A build that begins with a disk image which dibble has built: the same tree comes out."""

from __future__ import annotations

import lzma
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.build.debian_trees import differences, of_tar
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

CONTENT = """
cd "$TARGET_ROOT"
mkdir -p opt/folder/deep boot/efi
echo first > opt/file
ln opt/file opt/folder/deep/twin
chown 1234:65530 opt/file
chmod 4755 opt/file
ln -s ../file opt/folder/link
long=$(printf 'long/%.0s' {1..30})
ln -s "$long" opt/folder/long
mkfifo opt/pipe
truncate --size=3M opt/sparse
echo end >> opt/sparse
echo odd > "opt/a name
with \\"marks\\" <2>"
touch opt/empty $'opt/\\xe4'
mkdir -m 1777 opt/sticky
chown 42:43 opt/sticky
head -c 300000 /dev/zero | tr '\\0' x > opt/large
echo loader > boot/efi/loader.cfg
python3 -c '
import os
os.setxattr("opt/large", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
'
"""


@pytest.fixture(scope="module")
def elements(ordinary_user: Person) -> SmallElements:
    """`filled` puts whatever a root file system has into a tree; `again` begins with an image."""
    found = SmallElements(ordinary_user, ordinary_user.directory("image-based"))
    found.write("filled/README.rst", "======\nfilled\n======\nAll kinds of files.\n")
    found.script("filled/root.d/20-filled", CONTENT)
    found.write("again/element-provides", "operating-system\n")
    found.write("again/element-deps", "sysprep\n")
    found.write("again/README.rst", "=====\nagain\n=====\nAn image.\n")
    found.script("again/root.d/10-again", '"$TMP_HOOKS_PATH/bin/extract-image" any any.tar "" ""')
    return found


@pytest.fixture(scope="module")
def first(elements: SmallElements) -> Iterator[Path]:
    """The directory with the first image, as qcow2 and as tar."""
    words = ("-n", "-t", "qcow2,tar", "-o", "first", "small", "filled", "block-device-efi", "sysprep")
    elements.person.dibble("build", *words, cwd=elements.place, env=elements.environment())
    yield elements.place
    shutil.rmtree(elements.place, ignore_errors=True)


def again(elements: SmallElements, image: Path, name: str, *, check: bool = True) -> str:
    """Build from an image; returns what was said."""
    words = ("-n", "-t", "tar", "-o", name, "again")
    env = elements.environment(DIB_LOCAL_IMAGE=str(image))
    done = elements.person.dibble("build", *words, cwd=elements.place, env=env, check=check)
    return done.stdout + done.stderr


def test_a_qcow2_with_partitions_gives_the_tree_that_it_was_made_of(elements: SmallElements, first: Path) -> None:
    said = again(elements, first / "first.qcow2", "second")
    assert "/: partition 3 (ext, label cloudimg-rootfs)" in said
    assert "/boot/efi: partition 1 (vfat, label MKFS_ESP)" in said
    ours, theirs = of_tar(first / "second.tar"), of_tar(first / "first.tar")
    # FAT knows no owner and no mode, and each layout has its own fstab
    assert differences(ours, theirs, ("boot/efi", "etc/fstab", "lost+found")) == []
    assert ours["boot/efi/loader.cfg"].content == b"loader\n"
    assert ours["opt/file"].mode == 0o4755
    assert (ours["opt/file"].owner, ours["opt/file"].group) == ("1234", "65530")
    assert ours["opt/large"].attributes
    with tarfile.open(first / "second.tar") as archive:
        assert {archive.getmember(f"./opt/{name}").type for name in ("file", "folder/deep/twin")} == {
            tarfile.REGTYPE,
            tarfile.LNKTYPE,
        }


def test_a_packed_raw_file_system_is_read_too(elements: SmallElements, first: Path) -> None:
    words = ("-n", "-t", "raw", "-o", "bare", "small", "filled", "sysprep")
    elements.person.dibble("build", *words, cwd=elements.place, env=elements.environment())
    packed = first / "bare.img.xz"
    packed.write_bytes(lzma.compress((first / "bare.raw").read_bytes(), preset=0))
    said = again(elements, packed, "third")
    assert "/: the whole disk (ext, label cloudimg-rootfs)" in said
    assert differences(of_tar(first / "third.tar"), of_tar(first / "first.tar"), ("etc/fstab", "lost+found")) == []


def test_what_is_no_disk_ends_the_build_in_a_sentence(elements: SmallElements, first: Path) -> None:
    nothing = first / "nothing.img"
    nothing.write_bytes(b"nothing" * 1000)
    said = again(elements, nothing, "none", check=False)
    assert "nothing.img has no partition with a root file system" in said
    assert "Traceback" not in said
    assert "fault in dibble" not in said


@pytest.mark.parametrize(
    ("element", "variables"),
    [
        ("replace-partition", {"DISTRO_NAME": "debian", "EFI_BOOT_DIR": "EFI/debian", "DIB_INIT_SYSTEM": "systemd"}),
        ("replace-partition-redhat", {"DISTRO_NAME": "rocky"}),
    ],
)
def test_an_image_gets_another_disk_and_its_tree_stays(
    elements: SmallElements, first: Path, element: str, variables: dict[str, str]
) -> None:
    """The image has no kernel and no boot loader, so `no-boot` stands for the element bootloader."""
    elements.write("no-boot/element-provides", "bootloader\n")
    elements.write("no-boot/README.rst", "=======\nno-boot\n=======\nNothing starts this image.\n")
    words = ("-n", "-t", "raw,tar", "-o", element, element, "no-boot", "block-device-mbr")
    env = elements.environment(DIB_LOCAL_IMAGE=str(first / "first.qcow2"), DIB_RELEASE="9", **variables)
    elements.person.dibble("build", *words, cwd=elements.place, env=env)
    ours, theirs = of_tar(first / f"{element}.tar"), of_tar(first / "first.tar")
    assert differences(ours, theirs, ("boot/efi", "etc/fstab", "lost+found")) == []
    with (first / f"{element}.raw").open("rb") as disk:
        disk.seek(0x1BE + 4)
        assert disk.read(1) == b"\x83", "one partition of Linux in an MBR"
    assert b"/boot/efi" in theirs["etc/fstab"].content
    assert b"/boot/efi" not in ours["etc/fstab"].content


def test_a_recipe_for_containers_becomes_the_root_without_a_runtime_on_the_machine(
    elements: SmallElements, first: Path
) -> None:
    recipe = elements.write(
        "../recipe/Containerfile",
        "FROM scratch\nADD first.tar /\nCOPY note /opt/\nRUN cat /opt/note > /opt/copied && chmod 4711 /opt/copied\n",
    )
    elements.write("../recipe/note", "a note\n")
    shutil.copy(first / "first.tar", recipe.parent)
    env = elements.environment(
        DIB_CONTAINERFILE_DOCKERFILE=str(recipe),
        DIB_CONTAINER_CONTEXT=str(recipe.parent),
        DISTRO_NAME="debian",
        DIB_RELEASE="trixie",
        DIB_INIT_SYSTEM="systemd",
    )
    words = ("-n", "-t", "tar", "-o", "fourth", "containerfile")
    elements.person.dibble("build", *words, cwd=elements.place, env=env)
    ours, theirs = of_tar(first / "fourth.tar"), of_tar(first / "first.tar")
    assert ours["opt/copied"].content == b"a note\n"
    assert ours["opt/copied"].mode == 0o4711
    for name in ("opt/file", "opt/folder/link", "opt/large", "opt/sticky", "opt/empty"):
        assert ours[name] == theirs[name], name


def test_a_group_of_tools_that_there_is_not_is_told_with_file_and_line(elements: SmallElements) -> None:
    elements.write("wishes/README.rst", "======\nwishes\n======\nWants what nobody has.\n")
    elements.write("wishes/element-tools", "containers\nhammers\n")
    done = elements.run("build", "-n", "-t", "tar", "small", "wishes", check=False)
    assert done.returncode != 0
    assert "wishes/element-tools:2" in done.stderr + done.stdout
    assert 'there is no group of tools "hammers"' in done.stderr + done.stdout
