"""Ramdisks of Debian, made with busybox by an ordinary user, with dracut by root, and of a whole image."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import pytest
from tests import ramdisks
from tests.build.small_elements import SmallElements, ran
from tests.ramdisks import names_in, shell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person
    from tests.ramdisks import Ramdisk

pytestmark = pytest.mark.build


@pytest.fixture(scope="module")
def busybox(debian_packages: None) -> Ramdisk:
    return ramdisks.ramdisk("busybox")


@pytest.fixture(scope="module")
def dracut(debian_packages: None) -> Ramdisk:
    return ramdisks.ramdisk("dracut")


def text_in(initramfs: Path, name: str) -> str:
    return shell(f"gzip -dc {initramfs.name} | cpio --extract --to-stdout --quiet {name} ./{name}", initramfs.parent)


def files_beside(made: Ramdisk) -> set[str]:
    return {path.name for path in made.place.iterdir()} - {"elements", "firmware", "ramdisk.d"}


@pytest.mark.parametrize("name", list(ramdisks.KINDS))
def test_a_kernel_and_a_ramdisk_are_made_and_no_disk(name: str, debian_packages: None) -> None:
    made = ramdisks.ramdisk(name)
    assert files_beside(made) == {*ramdisks.OUTPUTS, *([ramdisks.ISO] if name == "busybox" else [])}
    for path in (made.kernel, made.initramfs):
        assert path.stat().st_uid == made.person.uid
        assert path.stat().st_size > 1 << 20
    with made.kernel.open("rb") as kernel:
        assert kernel.read(0x206)[0x202:] == b"HdrS"  # Documentation/arch/x86/boot.rst


def test_the_pieces_stand_in_init_by_name(busybox: Ramdisk) -> None:
    pieces = re.findall(r"^### init\.d/(.*)$", text_in(busybox.initramfs, "init"), re.MULTILINE)
    assert pieces == ["10-start-udev", "20-init-variables", "30-configure-network", "40-hw-sanity-checks", "50-ilo",
                      "60-hwdiscovery", "65-probe", "70-hwburnin", "80-deploy-baremetal", "81-deploy-kexec",
                      "90-deploy-baremetal-restart"]  # fmt: skip


def test_an_iso_starts_the_kernel_and_the_ramdisk_by_bios_and_by_uefi(busybox: Ramdisk) -> None:
    iso = (busybox.place / ramdisks.ISO).read_bytes()
    # ECMA-119 8.4: the primary volume descriptor in sector 16; El Torito: the boot record in sector 17.
    assert iso[0x8000:0x8006] == b"\x01CD001"
    assert iso[0x8028:0x8048].rstrip() == b"DIB_ISO"
    assert iso[0x8800:0x8820].startswith(b"\0CD001\x01EL TORITO SPECIFICATION")
    catalogue = int.from_bytes(iso[0x8847:0x884B], "little") * 2048
    assert iso[catalogue + 1] == 0, "BIOS comes first"
    assert iso[catalogue + 64 : catalogue + 66] == b"\x91\xef", "the last section is UEFI's"
    assert iso[510:512] == b"\x55\xaa", "it starts from a USB stick"
    assert busybox.kernel.read_bytes() in iso
    assert busybox.initramfs.read_bytes() in iso
    assert re.search(rb"linux /boot/vmlinuz boot_method=vmedia console=tty0 console=ttyS0,115200 *\n", iso)


def test_what_elements_want_is_in_a_ramdisk_of_busybox(busybox: Ramdisk) -> None:
    names = names_in(busybox.initramfs)
    assert {"init", "init-func", "iscsi-target-func", "probe-installed", "bin/sha256sum", "bin/tgtd"} <= names
    assert {"bin/bash", "bin/busybox", "bin/udevd", "bin/ls", "lib/udev/rules.d/95-probe.rules"} <= names
    assert {"ilo/CP000001.scexe", "bin/kexec", "bin/lshw"} <= names
    modules = {name.rpartition("/")[2] for name in names if ".ko" in name}
    assert len(modules) > 1000
    assert "virtio_net.ko.xz" in modules
    assert not [name for name in modules if "fb.ko" in name], "drivers of frame buffers stay out"


def test_what_elements_want_is_in_a_ramdisk_of_dracut(dracut: Ramdisk) -> None:
    names = names_in(dracut.initramfs)
    hook = next(name for name in names if "hooks/pre-mount/50-" in name)
    pieces = re.findall(r"^### init\.d/(.*)$", text_in(dracut.initramfs, hook), re.MULTILINE)
    assert pieces == ["00-override-functions", "20-init-variables", "40-hw-sanity-checks", "65-probe", "70-hwburnin"]
    ends = {name.rpartition("/")[2] for name in names}
    assert {"init-func", "iscsi-target-func", "sha256sum", "busybox", "95-probe.rules", "dummy.ko.xz"} <= ends
    assert {"iscsi_target_mod.ko.xz", "virtio_net.ko.xz"} <= ends
    assert not {"dash", "plymouthd", "systemctl"} & ends


def test_an_edited_piece_makes_the_ramdisk_anew_and_nothing_else(busybox: Ramdisk) -> None:
    piece = busybox.place / "elements/probe/init.d/65-probe"
    before = piece.read_text()
    mark = f"probe: edited {uuid.uuid4()}"  # never built before, whatever the cache holds
    piece.write_text(f"{before}echo '{mark}'\n")
    try:
        again = ramdisks.build(busybox.person, busybox.place, *ramdisks.KINDS["busybox"].words)
    finally:
        piece.write_text(before)
    assert mark in text_in(again.initramfs, "init")
    steps = re.findall(r"Running (\S+\.d/\S+)", again.printed)
    assert "post-install.d/99-build-ramdisk" in steps
    assert not [step for step in steps if step.startswith(("root.d", "pre-install.d", "install.d"))]


@pytest.fixture
def small(ourselves: Person) -> SmallElements:
    """A ramdisk element without a ramdisk: what is wrong is told before one would be made."""
    elements = SmallElements(ourselves, ourselves.directory("small-ramdisk"))
    elements.write("wants/README.rst", "=====\nwants\n=====\nWants a program.\n")
    return elements


def test_a_program_that_is_not_in_the_image_is_told_with_the_list_that_wants_it(small: SmallElements) -> None:
    small.write("wants/binary-deps.d/wanted", "bash frobnicate\n")
    done = small.run("build", "-n", "-t", "tar", "small", "ramdisk-base", "wants", check=False)
    assert done.returncode == 1
    assert "frobnicate (wanted)" in done.stderr
    assert "bash" not in done.stderr.split("binary-deps.d:")[1].splitlines()[0]


def test_a_build_that_made_no_ramdisk_says_which_elements_do(small: SmallElements) -> None:
    done = small.run("build", "-n", "-t", "tar", "small", "ramdisk-base", check=False)
    assert done.returncode == 1
    assert "is one of the elements ramdisk and dracut-ramdisk in the image?" in done.stderr


def test_no_final_image_leaves_out_the_disk_and_keeps_archives(small: SmallElements) -> None:
    small.write("my-no-final-image/README.rst", "=================\nmy-no-final-image\n=================\nA mark.\n")
    done = small.run("build", "-n", "-o", "out", "-t", "raw,tar", "small", "my-no-final-image")
    assert {path.name for path in small.place.glob("out*")} == {"out.tar"}
    assert "no raw is made: my-no-final-image is among the elements" in done.stdout
    assert ran(small.build("-o", "out", "small", "my-no-final-image")) == [], "from the store"
