"""XFS and btrfs read back without a kernel: a tree with everything that a file system may lose, and damaged images."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from tests import torture
from tests.inside import with_tools

from dibble.disk.filesystems.base import Place
from dibble.disk.model import Extent, Filesystem
from dibble.errors import ReadError
from dibble.events import Events
from dibble.read.btrfs import BtrfsReader
from dibble.read.xfs import XfsReader
from dibble.registry import load

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dibble.read.entry import Entry
    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

MIB = 1 << 20
UUID_OF_TEST = UUID("0d1bb1e0-1234-5678-9abc-def012345678")
READERS: dict[str, type[XfsReader] | type[BtrfsReader]] = {"xfs": XfsReader, "btrfs": BtrfsReader}
OURS = [
    ("xfs", ()),
    ("xfs", ("-i", "size=1024,nrext64=1", "-b", "size=2048")),
    ("xfs", ("-n", "size=16384", "-m", "bigtime=0,inobtcount=0,finobt=0,reflink=0", "-i", "sparse=0")),
    ("btrfs", ("--compress", "zstd:5", "--subvol", "rw:names", "--subvol", "default-ro:folder-of-40")),
    ("btrfs", ("--compress=zlib", "-n", "4096", "-m", "single", "--csum", "sha256", "-O", "^no-holes")),
]


def content_of(directory: Path) -> Path:
    content = directory / "content"
    content.mkdir()
    return torture.make_torture(content, without=("sockets",))


def ours(toolbox: Toolbox, directory: Path, content: Path, kind: str, options: tuple[str, ...]) -> Path:
    """An image by our own writer."""
    image = directory / "image"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    node = Filesystem("mkfs_root", "root", kind, "torture", UUID_OF_TEST, options)
    place = Place(image, Extent("image0", 0, 400 * MIB), content, toolbox, Events(), torture.EPOCH)
    load("filesystems", kind)().write(node, place)
    return image


Facts = tuple[object, ...]
"""Mode, owners, content, link or device, extended attributes, all names of the same inode."""


def of_directory(top: Path) -> dict[str, tuple[Facts, float]]:
    """Path → facts and time of modification, in seconds."""
    paths = [top, *top.rglob("*")]
    twins: dict[int, list[str]] = {}
    for path in paths:
        twins.setdefault(path.lstat().st_ino, []).append(_name(path, top))
    found: dict[str, tuple[Facts, float]] = {}
    for path in paths:
        status = path.lstat()
        what: object = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)  # noqa: PTH115 - which keeps a final slash
        if stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("security.sel")]
        own = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        facts = (status.st_mode, status.st_uid, status.st_gid, what, own, tuple(sorted(twins[status.st_ino])))
        found[_name(path, top)] = (facts, status.st_mtime_ns / 1e9)
    return found


def _name(path: Path, top: Path) -> str:
    return os.path.relpath(path, top).removeprefix(".") if path == top else os.path.relpath(path, top)


def of_entries(entries: Iterable[Entry]) -> dict[str, tuple[Facts, float]]:
    """The same of what a reader tells."""
    everything = list(entries)
    twins: dict[int, list[str]] = {}
    for entry in everything:
        twins.setdefault(entry.inode, []).append(entry.path)
    found: dict[str, tuple[Facts, float]] = {}
    for entry in everything:
        what: object = entry.link if stat.S_ISLNK(entry.mode) else entry.device
        if stat.S_ISREG(entry.mode):
            what = hashlib.sha256(entry.content.read_bytes() if entry.content else b"").hexdigest()
        names = tuple(sorted(twins[entry.inode]))
        facts = (entry.mode, entry.uid, entry.gid, what, dict(entry.attributes), names)
        found[entry.path] = (facts, entry.mtime)
    return found


def read_back(directory: Path, image: Path, kind: str, source: Path, seconds: float = 1e-6) -> list[str]:
    """What differs between a tree and the image of it; times may by so much."""
    (directory / "scratch").mkdir()
    ours = of_entries(READERS[kind](image, 0, image.stat().st_size, directory / "scratch").entries())
    theirs = of_directory(source)
    found = [f"only in one: {path}" for path in ours.keys() ^ theirs.keys()]
    for path in ours.keys() & theirs.keys():
        if ours[path][0] != theirs[path][0] or abs(ours[path][1] - theirs[path][1]) > seconds:
            found.append(f"{path}: {ours[path]} instead of {theirs[path]}"[:400])
    return found[:20]


@pytest.mark.parametrize(("kind", "options"), OURS, ids=lambda value: value if isinstance(value, str) else None)
def test_an_image_of_ours_comes_back_entry_by_entry(kind: str, options: tuple[str, ...], test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        content = content_of(directory)
        source = content / "folder-of-40" if "default-ro:folder-of-40" in options else content
        return read_back(directory, ours(toolbox, directory, content, kind, options), kind, source)

    assert with_tools(test_cache, work, "filesystems") == []


@pytest.mark.parametrize("compression", ["", "lzo"])
def test_an_image_by_mkfs_btrfs_comes_back_entry_by_entry(compression: str, test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        content = content_of(directory)
        with (directory / "image").open("wb") as file:
            file.truncate(600 * MIB)
        options = [f"--compress={compression}"] if compression else []
        image = toolbox.path(directory / "image")
        toolbox.run(["mkfs.btrfs", "-q", "--rootdir", toolbox.path(content), *options, image])
        return read_back(directory, directory / "image", "btrfs", content, 1)  # mkfs keeps no fractions

    assert with_tools(test_cache, work, "filesystems") == []


def test_an_image_by_mkfs_xfs_comes_back(test_cache: Path) -> None:
    """mkfs.xfs puts names, content, modes and owners where the kernel's own code does, as a file of it lists them."""

    def work(toolbox: Toolbox, directory: Path) -> dict[str, tuple[int, int, int, bytes | str]]:
        (directory / "large").write_bytes(bytes(range(256)) * 5000)
        lines = ["/", "0 0", "d--755 0 0"]
        lines += [f"file-{number:05d} ---640 {number} 7 {toolbox.path(directory / 'large')}" for number in range(20)]
        lines += ["folder d--751 5 6"]
        lines += [f"a-name-of-some-length-{number:06d} l--777 1 2 goal" for number in range(3000)]
        lines += ["$", "null c--666 0 0 1 3", "long l--777 0 0 " + "x/" * 400, "$"]
        (directory / "list").write_text("\n".join(lines) + "\n")
        with (directory / "image").open("wb") as file:
            file.truncate(400 * MIB)
        toolbox.run(["mkfs.xfs", "-q", "-p", toolbox.path(directory / "list"), toolbox.path(directory / "image")])
        (directory / "scratch").mkdir()
        found: dict[str, tuple[int, int, int, bytes | str]] = {}
        for entry in XfsReader(directory / "image", 0, 400 * MIB, directory / "scratch").entries():
            text = entry.content.read_bytes()[-1000:] if entry.content else entry.link
            found[entry.path] = (entry.mode, entry.uid, entry.gid, text)
            assert entry.path != "null" or entry.device == (1, 3)
        return found

    found = with_tools(test_cache, work, "filesystems")
    assert len(found) == 1 + 20 + 1 + 3000 + 2
    assert found["file-00007"] == (0o100640, 7, 7, (bytes(range(256)) * 5000)[-1000:])
    assert found["folder"][:3] == (0o40751, 5, 6)
    assert found["folder/a-name-of-some-length-002999"][3] == "goal"
    assert found["long"][3] == "x/" * 400


def test_a_root_in_a_subvolume_gets_those_that_its_fstab_mounts(test_cache: Path) -> None:
    """As Fedora lays out its images: `root` and `home` side by side."""

    def work(toolbox: Toolbox, directory: Path) -> list[tuple[str, str]]:
        content = directory / "content"
        for name in ("root/etc", "root/home", "root/usr", "home/user", "other"):
            (content / name).mkdir(parents=True)
        (content / "root/etc/fstab").write_text(
            "UUID=1 / btrfs compress=zstd:1,subvol=root 0 0\nUUID=1 /home btrfs subvol=home,compress=zstd:1 0 0\n"
        )
        (content / "home/user/mail").write_text("dear")
        options = ("--subvol", "rw:root", "--subvol", "rw:home", "--subvol", "rw:other")
        image = ours(toolbox, directory, content, "btrfs", options)
        (directory / "scratch").mkdir()
        entries = BtrfsReader(image, 0, 400 * MIB, directory / "scratch").entries()
        return sorted((one.path, one.content.read_text() if one.content else "") for one in entries)

    found = dict(with_tools(test_cache, work, "filesystems"))
    assert found.keys() == {"", "etc", "etc/fstab", "home", "home/user", "home/user/mail", "usr"}
    assert found["home/user/mail"] == "dear"


def used_blocks(image: Path) -> list[int]:
    """Where an image has anything, in steps of 4096 bytes."""
    found: list[int] = []
    with image.open("rb") as file:
        at = 0
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // 4096 * 4096
            except OSError:
                return found
            if any(os.pread(file.fileno(), 4096, at)):
                found.append(at)
            at += 4096


def damaged(kind: str, image: Path, used: list[int], directory: Path, seed: int) -> str | None:
    """Read an image with some bytes changed, undo that, and return what was said; None where nobody noticed."""
    chance = random.Random(seed)
    undo: list[tuple[int, bytes]] = []
    with image.open("r+b", buffering=0) as file:
        for _ in range(chance.choice((1, 4, 30))):
            at = chance.choice(used) + chance.randrange(4096)
            change = chance.randbytes(chance.choice((1, 4, 64)))
            undo.append((at, os.pread(file.fileno(), len(change), at)))
            os.pwrite(file.fileno(), change, at)
        try:
            for _ in READERS[kind](image, 0, image.stat().st_size, directory).entries():
                pass
        except ReadError as error:
            return str(error)
        else:
            return None
        finally:
            for at, data in reversed(undo):
                os.pwrite(file.fileno(), data, at)


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
@pytest.mark.parametrize("sealed", [True, False], ids=["as it is", "with checksums that fit"])
def test_a_damaged_image_is_one_error_and_never_a_hang(
    kind: str, sealed: bool, test_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the checksums every field may be anything."""
    if not sealed:
        monkeypatch.setattr("dibble.read.btrfs_trees.Volume._check", lambda *_: None)
        monkeypatch.setattr("dibble.read.xfs_blocks.Volume.check", lambda *_: None)

    def work(toolbox: Toolbox, directory: Path) -> list[str | None]:
        content = directory / "content"
        content.mkdir()
        for number in range(40):
            (content / f"folder-{number % 4}").mkdir(exist_ok=True)
            (content / f"folder-{number % 4}/file-{number}").write_bytes(b"x" * number * 200)
        (content / "link").symlink_to("x" * 300)
        size = (300 if kind == "xfs" else 160) * MIB
        image = directory / "image"
        with image.open("wb") as file:
            file.truncate(size)
        node = Filesystem("mkfs_root", "root", kind, "", UUID_OF_TEST, ())
        place = Place(image, Extent("image0", 0, size), content, toolbox, Events(), torture.EPOCH)
        load("filesystems", kind)().write(node, place)
        (directory / "scratch").mkdir()
        used = used_blocks(image)
        return [damaged(kind, image, used, directory / "scratch", seed) for seed in range(60)]

    said = with_tools(test_cache, work, "filesystems")
    assert any(said), "some of the damage is noticed"
    assert all("file system" in text for text in said if text)
