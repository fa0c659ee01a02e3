"""Every registered file system type, made and filled in the middle of an image file, read back by other programs."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from tests.inside import with_tools

from dibble.disk.filesystems.base import FilesystemKind, Place
from dibble.disk.model import Defaults, Extent, Filesystem
from dibble.errors import OutputError
from dibble.events import Events
from dibble.registry import load, names

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

OFFSET = 1 << 20
SIZES = {"btrfs": 192 << 20, "xfs": 320 << 20}
SIZE = 96 << 20  # of the others
TOOLS = ("filesystems",)
EPOCH = 1_700_000_000
UUID_OF_TEST = UUID("0d1bb1e0-1234-5678-9abc-def012345678")
KINDS = names("filesystems", installed=False)
FEWEST_CLUSTERS = {12: 1, 16: 4085, 32: 65525}  # what a file system is told by, whatever its header says
EXT = ("ext2", "ext3", "ext4")


FULL = (*EXT, "btrfs", "erofs", "squashfs", "xfs")  # hold every kind of entry
LABELLED = [kind for kind in KINDS if kind != "squashfs"]


def node(kind: str, *options: str) -> Filesystem:
    label = "SOMEDATA" if kind in LABELLED else ""
    return Filesystem("mkfs_root", "root", kind, label, UUID_OF_TEST, options)


def fill(directory: Path, *, full: bool) -> Path:
    """Content with whatever a root file system has; only files and directories when not `full`."""
    content = directory / "content"
    content.mkdir()
    (content / "hello").write_text("hello\n")
    (content / "folder").mkdir()
    (content / "folder" / "data").write_bytes(os.urandom(0) + b"x" * 300_000)
    os.utime(content / "hello", (EPOCH + 5, EPOCH - 5))  # reading may change the first one
    if full:
        (content / "setuid").write_text("su")
        os.chown(content / "setuid", 0, 42)
        (content / "setuid").chmod(0o4755)
        os.setxattr(content / "setuid", "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
        (content / "link").symlink_to("/a/target/that/is/long/enough/not/to/fit/into/the/inode/itself/at/all")
        os.link(content / "hello", content / "twin")
        os.mkfifo(content / "pipe")
        (content / "owned").mkdir(mode=0o700)
        os.chown(content / "owned", 1000, 65534)
    return content


def make(toolbox: Toolbox, directory: Path, kind: str, *, content: Path | None, number: int = 0) -> Path:
    image = directory / f"disk-{number}.raw"
    with image.open("wb") as file:
        file.truncate(OFFSET + SIZES.get(kind, SIZE) + OFFSET)
    place = Place(image, Extent("image0", OFFSET, SIZES.get(kind, SIZE)), content, toolbox, Events(), EPOCH)
    filesystem: FilesystemKind = load("filesystems", kind)()
    filesystem.write(node(kind), place)
    return image


def cut(image: Path) -> Path:
    """The extent alone, for programs that know no offset; nothing may stand around it."""
    data = image.read_bytes()
    assert not any(data[:OFFSET])
    assert not any(data[-OFFSET:])
    alone = image.with_suffix(".fs")
    alone.write_bytes(data[OFFSET:-OFFSET])
    return alone


@pytest.mark.parametrize("kind", LABELLED)
def test_the_file_system_stands_in_its_extent_with_label_and_uuid(kind: str, test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> dict[str, str]:
        holds_files = load("filesystems", kind)().info.holds_files
        content = fill(directory, full=kind in FULL) if holds_files else None
        alone = cut(make(toolbox, directory, kind, content=content))
        answer = toolbox.run(["blkid", "-p", "-o", "export", toolbox.path(alone)]).output
        return dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)

    found = with_tools(test_cache, work, *TOOLS)
    assert found["TYPE"] == {"fat": "vfat"}.get(kind, kind)
    assert found["LABEL"] == "SOMEDATA"
    assert found["UUID"] == ("0D1B-B1E0" if kind in ("vfat", "fat") else str(UUID_OF_TEST))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "swap"])
def test_two_runs_give_the_same_bytes(kind: str, test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        content = fill(directory, full=kind in FULL)
        images = [make(toolbox, directory, kind, content=content, number=number) for number in range(2)]
        return [hashlib.sha256(image.read_bytes()).hexdigest() for image in images]

    first, second = with_tools(test_cache, work, *TOOLS)
    assert first == second


@pytest.mark.parametrize("kind", EXT)
def test_ext_keeps_owners_modes_links_and_capabilities(kind: str, test_cache: Path, tmp_path: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> bytes:
        return cut(make(toolbox, directory, kind, content=fill(directory, full=True))).read_bytes()

    alone = tmp_path / "alone"
    alone.write_bytes(with_tools(test_cache, work))
    check = subprocess.run(["e2fsck", "-fn", alone], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr

    def debugfs(request: str) -> str:
        done = subprocess.run(["debugfs", "-R", request, alone], capture_output=True, text=True, check=True)
        return done.stdout

    setuid = debugfs("stat /setuid")
    assert "Mode:  04755" in setuid
    assert "Group:    42" in setuid
    assert "security.capability" in setuid
    assert "Links: 2" in debugfs("stat /twin")
    assert debugfs("stat /twin").splitlines()[0] == debugfs("stat /hello").splitlines()[0]
    assert "not/to/fit/into/the/inode" in debugfs("cat /link") + debugfs("stat /link")
    assert "Type: FIFO" in debugfs("stat /pipe")
    owned = debugfs("stat /owned")
    assert "User:  1000" in owned
    assert "Group: 65534" in owned
    assert f"mtime: 0x{EPOCH - 5:08x}" in debugfs("stat /hello")
    assert debugfs("cat /hello") == "hello\n"


def test_vfat_holds_the_files(test_cache: Path, tmp_path: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> bytes:
        return cut(make(toolbox, directory, "vfat", content=fill(directory, full=False))).read_bytes()

    alone = tmp_path / "alone"
    alone.write_bytes(with_tools(test_cache, work))
    check = subprocess.run(["fsck.vfat", "-n", alone], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr
    read = subprocess.run(["mcopy", "-i", alone, "::/folder/data", "-"], capture_output=True, check=True)
    assert read.stdout == b"x" * 300_000


@pytest.mark.parametrize(
    ("mib", "options", "bits"), [(4, (), 12), (10, (), 16), (192, (), 16), (192, ("-F", "32"), 32), (550, (), 32)]
)
def test_vfat_suits_the_size_of_its_partition_not_of_the_disk(
    mib: int, options: tuple[str, ...], bits: int, test_cache: Path
) -> None:
    def work(toolbox: Toolbox, directory: Path) -> bytes:
        image = directory / "disk.raw"
        with image.open("wb") as file:
            file.truncate(2 << 30)
        content = fill(directory, full=False)
        place = Place(image, Extent("image0", OFFSET, mib << 20), content, toolbox, Events(), EPOCH)
        load("filesystems", "vfat")().write(node("vfat", *options), place)
        alone = directory / "alone"
        with image.open("rb") as file:
            file.seek(OFFSET)
            alone.write_bytes(file.read(mib << 20))
        toolbox.run(["fsck.vfat", "-n", toolbox.path(alone)])
        return alone.read_bytes()[:512]

    sector = with_tools(test_cache, work)
    kind = sector[0x52:0x5A] if bits == 32 else sector[0x36:0x3E]
    assert kind == f"FAT{bits}".ljust(8).encode()
    assert FEWEST_CLUSTERS[bits] <= (mib << 20) * 0.99 // 512 // sector[0x0D] < 1 << bits


def test_vfat_refuses_what_it_cannot_hold(test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        content = fill(directory, full=False)
        (content / "link").symlink_to("hello")
        make(toolbox, directory, "vfat", content=content)

    with pytest.raises(OutputError, match="neither a file nor a directory"):
        with_tools(test_cache, work)


@pytest.mark.parametrize("kind", ["btrfs", "erofs", "ext4", "f2fs", "squashfs", "vfat", "xfs"])
def test_content_that_does_not_fit_is_told(kind: str, test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        content = fill(directory, full=False)
        with (content / "large").open("wb") as file:
            for _ in range((SIZES.get(kind, SIZE) >> 20) + 14):
                file.write(os.urandom(1 << 20))
        make(toolbox, directory, kind, content=content)

    size = SIZES.get(kind, SIZE) >> 20
    with pytest.raises(OutputError, match=f"mkfs_root of {size} MiB is too small for its content"):
        with_tools(test_cache, work, *TOOLS)


@pytest.mark.parametrize("journal_mib", [4, 64])
@pytest.mark.parametrize("kind", EXT)
def test_no_minimum_is_below_what_the_content_takes(kind: str, journal_mib: int, test_cache: Path) -> None:
    """A file system of the minimum size takes the content that it was computed for, and a journal larger than that."""
    from dibble.tree.walk import content_size

    def work(toolbox: Toolbox, directory: Path) -> str:
        content = fill(directory, full=True)
        for number in range(400):
            (content / f"file-{number}").write_bytes(b"a" * (number * 50))
        size = content_size(content, ["/"])
        filesystem = load("filesystems", kind)()
        defaults = Defaults(UUID_OF_TEST, journal_mib=journal_mib)
        least = filesystem.minimum_size(size.allocated["/"], size.files["/"], node(kind), defaults)
        image = directory / "small.raw"
        with image.open("wb") as file:
            file.truncate(least)
        place = Place(image, Extent("image0", 0, least), content, toolbox, Events(), EPOCH)
        options = ("-J", f"size={journal_mib}") if kind == "ext4" else ()
        filesystem.write(node(kind, "-i", "4096", *options), place)
        return toolbox.run(["e2fsck", "-fn", toolbox.path(image)]).output

    with_tools(test_cache, work)


def test_the_tests_content_has_all_kinds(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("ownership needs root")
    kinds = {stat.S_IFMT(path.lstat().st_mode) for path in fill(tmp_path, full=True).rglob("*")}
    assert kinds == {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO}
