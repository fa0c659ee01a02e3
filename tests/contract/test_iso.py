"""An ISO image of a tree: the same bytes each time, and what xorriso of the host, mtools and sfdisk find on it."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.inside import with_tools
from tests.unit.output_values import EPOCH, request

from dibble.errors import OutputError
from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.registry import load
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(host_arch() != "amd64", reason="the tools have GRUB for both firmwares of amd64 only there"),
]
ENVIRONMENT = {"DIB_BOOT_ISO_KERNEL_CMDLINE_ARGS": "toram  quiet"}
KERNEL, INITRD = b"a kernel" * 4000, b"an initramfs" * 50_000


def tree(directory: Path) -> Path:
    root = directory / "tree"
    for name in ("boot", "etc", "usr/lib/live/boot"):
        (root / name).mkdir(parents=True)
    for release, more in (("6.9.1", b"old"), ("6.12.1", b"")):
        (root / f"boot/vmlinuz-{release}").write_bytes(more + KERNEL)
        (root / f"boot/initrd.img-{release}").write_bytes(more + INITRD)
    (root / "boot/vmlinuz-6.13.0").write_bytes(b"which has no initramfs")
    (root / "etc/hostname").write_text("live")
    (root / "etc/fstab").write_text("LABEL=disk / ext4 defaults 0 1\n")
    return root


def write(form: str, root: Path, toolbox: Toolbox, *, work: Path) -> Path:
    target = work / f"N.{form}"
    wanted = request(work, name="a/live image", environment=ENVIRONMENT)
    load("outputs", form)().write(Writing(Source(root, None, work=work), target, wanted, toolbox, Events(), EPOCH))
    return target


def test_an_iso_has_the_same_bytes_again_and_what_both_firmwares_start(test_cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "N.iso"

    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        sums = []
        for number in range(2):
            (directory / str(number)).mkdir()
            image = write("iso", tree(directory / str(number)), toolbox, work=directory / str(number))
            sums.append(hashlib.sha256(image.read_bytes()).hexdigest())
            time.sleep(2.1 * (1 - number))  # FAT's times have two seconds
        shutil.copyfile(image, copy)
        return sums

    one, two = with_tools(test_cache, work, "iso")
    assert one == two
    told = xorriso(copy, "-report_el_torito", "plain", "-report_system_area", "plain", "-pvd_info")
    assert re.search(r"El Torito boot img :\s+1\s+BIOS\s+y\s+none", told)
    assert re.search(r"El Torito boot img :\s+2\s+UEFI\s+y\s+none", told)
    assert re.search(r"El Torito img path :\s+1\s+/boot/grub/eltorito.img", told)
    assert "grub2-mbr" in told, "a BIOS starts it from a stick"
    assert "LIVE_IMAGE" in told
    out = tmp_path / "out"
    xorriso(copy, "-osirrox", "on", "-extract", "/", str(out))
    assert (out / "live/vmlinuz").read_bytes() == KERNEL
    assert (out / "live/initrd").read_bytes() == INITRD
    assert (
        "linux /live/vmlinuz boot=live console=tty0 console=ttyS0,115200 toram quiet\n"
        in (out / "boot/grub/grub.cfg").read_text()
    )
    squashfs = out / "live/filesystem.squashfs"
    listed = subprocess.check_output(["unsquashfs", "-cat", squashfs, "etc/fstab", "etc/hostname"], text=True)
    assert listed == "# The initial ramdisk mounts the root of a live system.\nlive"
    assert [path.stat().st_mtime for path in out.rglob("*.cfg")] == [EPOCH]
    # The El Torito entry of UEFI and the partition are the same file system.
    (mark,) = (path.name for path in (out / ".disk/id").iterdir())
    partition = re.search(r"MBR partition\s+:\s+2\s+0x\w+\s+0xef\s+(\d+)\s+(\d+)", told) or re.search(
        r"GPT start and size :\s+2\s+(\d+)\s+(\d+)", told
    )
    assert partition, told
    start, size = int(partition[1]) * 512, int(partition[2]) * 512
    entry = re.search(r"El Torito boot img :\s+2\s+UEFI\s+y\s+none\s+0x0000\s+0x00\s+(\d+)\s+(\d+)", told)
    assert entry, told
    assert int(entry[2]) * 2048 == start
    assert min(int(entry[1]) * 512, 65535 * 512) == min(size, 65535 * 512)
    program = tmp_path / "BOOTX64.EFI"
    subprocess.run(["mcopy", "-n", "-i", f"{copy}@@{start}", "::EFI/BOOT/BOOTX64.EFI", program], check=True)
    assert program.read_bytes()[:2] == b"MZ"
    assert f"/.disk/id/{mark}".encode() in program.read_bytes()
    subprocess.run(["sgdisk", "--verify", copy], check=True, capture_output=True)


def xorriso(image: Path, *words: str) -> str:
    done = subprocess.run(
        ["xorriso", "-no_rc", "-indev", f"stdio:{image}", *words], check=True, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_the_newest_kernel_with_an_initramfs_is_put_beside_the_image(test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> tuple[bytes, bytes]:
        root = tree(directory)
        return (
            write("vmlinuz", root, toolbox, work=directory).read_bytes(),
            write("initrd", root, toolbox, work=directory).read_bytes(),
        )

    assert with_tools(test_cache, work) == (KERNEL, INITRD)


@pytest.mark.parametrize(
    ("form", "gone", "sentence"),
    [("iso", "usr/lib/live/boot", "no live-boot"), ("iso", "boot", "no kernel"), ("vmlinuz", "boot", "no kernel")],
)
def test_a_tree_that_cannot_be_started_is_refused(test_cache: Path, form: str, gone: str, sentence: str) -> None:
    def work(toolbox: Toolbox, directory: Path) -> tuple[str, list[str]]:
        root = tree(directory)
        shutil.rmtree(root / gone)
        with pytest.raises(OutputError, match=sentence) as caught:
            write(form, root, toolbox, work=directory)
        return caught.value.hint, [path.name for path in directory.iterdir()]

    hint, left = with_tools(test_cache, work, "iso")
    assert hint.startswith("add ")
    assert left == ["tree"]
