"""A tree with everything that a file system may lose is written into each, checked by its own program, and read back.

That a kernel finds all of it again shows tests/boot/test_boot_filesystems.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from tests import torture
from tests.inside import with_tools

from dibble.disk.filesystems.base import Place
from dibble.disk.model import Defaults, Extent, Filesystem
from dibble.errors import OutputError
from dibble.events import Events
from dibble.registry import load
from dibble.sandbox import mounts
from dibble.tree.walk import content_size

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

UUID_OF_TEST = UUID("0d1bb1e0-1234-5678-9abc-def012345678")
WITHOUT = {
    "ext4": (),
    "xfs": (),
    "btrfs": (),
    "erofs": ("sockets",),
    "squashfs": ("acls", "sockets"),
    "f2fs": ("acls", "attributes", "fifos", "sockets"),
}
CHECKS = {
    "ext4": ("e2fsck", "-fn"),
    "xfs": ("xfs_repair", "-n", "-f"),
    "btrfs": ("btrfs", "check", "--check-data-csum"),
    "erofs": ("fsck.erofs",),
    "squashfs": ("rdsquashfs", "--describe"),
    "f2fs": ("fsck.f2fs", "--dry-run"),
}
MIB = 1 << 20


def write(toolbox: Toolbox, image: Path, content: Path, kind: str, size: int, *options: str) -> Path:
    with image.open("wb") as file:
        file.truncate(size)
    label = "" if kind == "squashfs" else "torture"
    node = Filesystem("mkfs_root", "root", kind, label, UUID_OF_TEST, options)
    place = Place(image, Extent("image0", 0, size), content, toolbox, Events(), torture.EPOCH)
    load("filesystems", kind)().write(node, place)
    return image


def tree(directory: Path, kind: str, *, many: int = 3000) -> Path:
    content = directory / "content"
    content.mkdir()
    return torture.make_torture(content, many=many, without=WITHOUT[kind])


OPTIONS = [
    *((kind, ()) for kind in WITHOUT),
    ("xfs", ("-i", "size=1024", "-b", "size=2048")),
    ("xfs", ("-n", "size=16384", "-m", "bigtime=0,inobtcount=0,finobt=0,reflink=0", "-i", "sparse=0")),
    ("xfs", ("-i", "nrext64=1", "-d", "agcount=2")),
    ("btrfs", ("--compress", "zstd:5", "--subvol", "rw:names", "--subvol", "default-ro:folder-of-40")),
    ("btrfs", ("--compress=zlib", "-n", "4096", "-m", "single", "--csum", "sha256", "-O", "^no-holes")),
    ("btrfs", ("-d", "dup", "-O", "^free-space-tree,^block-group-tree", "--csum", "blake2")),
    ("squashfs", ("-c", "xz", "-b", "1048576")),
    ("erofs", ("-zlz4hc",)),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=lambda value: value if isinstance(value, str) else None)
def test_its_own_program_finds_no_fault(kind: str, options: tuple[str, ...], test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> str:
        image = write(toolbox, directory / "image", tree(directory, kind), kind, 400 * MIB, *options)
        command, *words = CHECKS[kind]
        last = "/" if kind == "squashfs" else ""
        done = toolbox.run([command, *words, toolbox.path(image), *([last] if last else [])], check=False)
        return f"{done.status}\n{done.output}"

    answer = with_tools(test_cache, work, "filesystems")
    assert answer.startswith("0\n"), answer[-3000:]
    assert not re.search(r"\b(would have|bad |corrupt(?!ed bugs)|mismatch between (?!the\b))", answer), answer[-3000:]


def test_btrfs_restores_every_entry(test_cache: Path) -> None:
    """Read by another program than ours, though not by a kernel: names, content, owners, modes, times, attributes."""

    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        content = tree(directory, "btrfs")
        image = write(toolbox, directory / "image", content, "btrfs", 400 * MIB, "--compress", "zstd")
        (directory / "restored").mkdir()
        options = ["--metadata", "--symlinks", "--xattr", "--ignore-errors"]
        toolbox.run(["btrfs", "restore", *options, toolbox.path(image), toolbox.path(directory / "restored")])
        return differences_of_files(content, directory / "restored")

    assert with_tools(test_cache, work, "filesystems") == []


def test_erofs_extracts_every_entry(test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        content = tree(directory, "erofs")
        image = write(toolbox, directory / "image", content, "erofs", 400 * MIB, "-zzstd")
        target = toolbox.path(directory / "restored")
        toolbox.run(["fsck.erofs", f"--extract={target}", "--no-xattrs", toolbox.path(image)])
        return differences_of_files(content, directory / "restored")

    assert with_tools(test_cache, work, "filesystems") == []


def differences_of_files(content: Path, restored: Path) -> list[str]:
    """Files and directories that differ in what the programs restore: no setuid bits, attributes and links."""

    def plain(top: Path) -> dict[str, str]:
        found = {}
        for name, text in torture.listing(top).items():
            word, owner, size, _, content = text.split()[:5]
            mode = int(word, 8)
            if stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFDIR):
                found[name] = f"{mode & 0o777:o} {owner} {size} {content}"
        return found

    left, right = plain(content), plain(restored)
    left.pop("."), right.pop(".")
    return torture.differences(left, right)[:20]


@pytest.mark.parametrize("kind", WITHOUT)
def test_the_order_in_which_directories_are_listed_changes_nothing(kind: str, test_cache: Path) -> None:
    def make(top: Path, *, backwards: bool) -> Path:
        top.mkdir()
        for number in sorted(range(400), reverse=backwards):
            folder = top / f"folder-{number % 20}"
            folder.mkdir(exist_ok=True)
            (folder / f"file-{number}").write_bytes(b"%d" % number * 3000)
        for path in (*top.rglob("*"), top):
            os.utime(path, (5, 5))
        return top

    def work(toolbox: Toolbox, directory: Path) -> list[str]:
        assert toolbox.root is not None
        memory = toolbox.root / "tmp" / "memory"  # mounted where the tools see it; lists the newest first
        memory.mkdir()
        mounts.tmpfs(memory)
        one, other = make(directory / "one", backwards=False), make(memory / "other", backwards=True)
        digests = []
        for number, content in enumerate((one, other)):
            image = write(toolbox, directory / f"image-{number}", content, kind, 320 * MIB)
            digests.append(hashlib.sha256(image.read_bytes()).hexdigest())
        return digests

    first, second = with_tools(test_cache, work, "filesystems")
    assert first == second


@pytest.mark.parametrize("kind", ["btrfs", "f2fs", "xfs"])
def test_no_minimum_is_below_what_the_content_takes(kind: str, test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        content = directory / "content"
        content.mkdir()
        for number in range(12_000):
            folder = content / f"folder-{number // 500}"
            folder.mkdir(exist_ok=True)
            (folder / f"a-name-that-is-neither-long-nor-short-{number}").write_bytes(os.urandom(number % 60_000))
        size = content_size(content, ["/"])
        node = Filesystem("mkfs_root", "root", kind, "torture", UUID_OF_TEST)
        filesystem = load("filesystems", kind)()
        least = filesystem.minimum_size(size.allocated["/"], size.files["/"], node, Defaults(UUID_OF_TEST))
        image = write(toolbox, directory / "image", content, kind, -(-least // MIB) * MIB)
        command, *words = CHECKS[kind]
        toolbox.run([command, *words, toolbox.path(image)])

    with_tools(test_cache, work, "filesystems")


def refusal(kind: str, options: tuple[str, ...], cache: Path, spoil: str = "") -> str:
    def work(toolbox: Toolbox, directory: Path) -> str:
        content = directory / "content"
        content.mkdir()
        (content / "folder").mkdir()
        (content / "file").touch()
        if spoil == "socket":
            os.mknod(content / "socket", 0o140755)
        elif spoil == "acl":
            os.setxattr(content / "file", "system.posix_acl_access", torture.ACL)
        elif spoil == "attribute":
            os.setxattr(content / "file", "user.some", b"value")
        elif spoil == "link":
            (content / "link").symlink_to("x" * 1500)
        elif spoil == "hard link":
            os.link(content / "file", content / "folder" / "twin")
        try:
            write(toolbox, directory / "image", content, kind, 400 * MIB, *options)
        except OutputError as error:
            left = sorted(path.name for path in directory.iterdir())
            assert left == ["content", "image"], left
            return str(error.message)
        return "nothing"

    return with_tools(cache, work, "filesystems")


@pytest.mark.parametrize(
    ("kind", "options", "spoil", "words"),
    [
        ("erofs", (), "socket", "socket is a socket, which is not written into erofs"),
        ("squashfs", (), "acl", "has the attribute system.posix_acl_access, for which squashfs has no place"),
        ("f2fs", (), "attribute", "has the attribute user.some, which sload.f2fs leaves out"),
        ("xfs", (), "link", "is a symbolic link to a name of 1500 bytes; xfs holds 1024"),
        ("btrfs", ("--subvol", "rw:folder"), "hard link", "hard links to one file in two subvolumes"),
        ("btrfs", ("--subvol", "rw:nowhere"), "", "/nowhere is to be a subvolume, but the tree has no such directory"),
        ("btrfs", ("--compress", "lzo"), "", 'compression "lzo" is not written here; there are zlib and zstd'),
        ("btrfs", ("--mixed",), "", "does not write: mixed-bg"),
        ("btrfs", ("--no-such",), "", "mkfs.btrfs does not make the file system mkfs_root"),
        ("xfs", ("-m", "rmapbt=1"), "", "does not write: rmapbt"),
        ("xfs", ("-m", "crc=0,finobt=0,reflink=0,rmapbt=0"), "", "does not"),
        ("xfs", ("-z",), "", "mkfs.xfs does not make the file system mkfs_root"),
    ],
)
def test_what_cannot_be_written_is_told(
    kind: str, options: tuple[str, ...], spoil: str, words: str, test_cache: Path
) -> None:
    answer = refusal(kind, options, test_cache, spoil)
    assert words in answer
    assert answer != "nothing"
