"""The formats of the tree besides tar and docker, each read by the programs that others use for it."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests import torture
from tests.inside import with_tools
from tests.unit.output_values import EPOCH, Remembered, request

from dibble.errors import OutputError
from dibble.events import Events, Note
from dibble.outputs.base import Source, Writing
from dibble.registry import load

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

UNPACK = {"tar.gz": ("gzip", "-dc"), "tgz": ("gzip", "-dc"), "tar.xz": ("xz", "-dcT2"), "tar.zst": ("zstd", "-dcq")}


def tree(directory: Path) -> Path:
    root = directory / "tree"
    root.mkdir()
    torture.make_torture(root, many=200, without=("acls", "sockets"))
    (root / "large").write_bytes(b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(200_000)))
    for name in ("proc", "sys"):
        (root / name).mkdir()
        (root / name / "of-the-build").touch()
    return root


def write(name: str, root: Path, toolbox: Toolbox, *, work: Path) -> Path:
    target = work / f"N.{load('outputs', name).info.suffix}"
    target.unlink(missing_ok=True)
    load("outputs", name)().write(
        Writing(Source(root, None, work=work), target, request(work), toolbox, Events(), EPOCH)
    )
    return target


def content(top: Path) -> dict[bytes, tuple[int, bytes]]:
    """Kind and content of each entry by its name."""
    found = {}
    start = os.fsencode(top)
    for folder, folders, files in os.walk(start):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            kind = stat.S_IFMT(os.lstat(path).st_mode)
            text = b""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:  # noqa: PTH123 - bytes
                    text = hashlib.sha256(file.read()).digest()
            elif kind == stat.S_IFLNK:
                text = os.readlink(path)  # noqa: PTH115 - bytes
            found[path.removeprefix(start + b"/")] = (kind, text)
    return found


def expected(root: Path) -> dict[bytes, tuple[int, bytes]]:
    """What is to be found of the tree: all but what is in proc and sys."""
    return {name: entry for name, entry in content(root).items() if not name.startswith((b"proc/", b"sys/"))}


@pytest.mark.parametrize("name", UNPACK)
def test_a_compressed_archive_is_the_plain_one_in_the_eyes_of_its_own_program(test_cache: Path, name: str) -> None:
    def work(toolbox: Toolbox, directory: Path) -> tuple[str, str, bool]:
        root = tree(directory)
        plain = write("tar", root, toolbox, work=directory)
        packed = write(name, root, toolbox, work=directory)
        with (directory / "out.tar").open("wb") as out:
            toolbox.run([*UNPACK[name], toolbox.path(packed)], stdout_file=out)
        with tarfile.open(packed if name != "tar.zst" else directory / "out.tar") as archive:
            assert "./proc" in archive.getnames()
        first = hashlib.sha256(packed.read_bytes()).digest()
        again = hashlib.sha256(write(name, root, toolbox, work=directory).read_bytes()).digest()
        sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (plain, directory / "out.tar")]
        return sums[0], sums[1], first == again

    one, other, same = with_tools(test_cache, work)
    assert one == other
    assert same


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("squashfs", ("rdsquashfs", "--quiet", "--unpack-path", "/", "--unpack-root", "OUT", "IMAGE")),
        ("erofs", ("fsck.erofs", "--extract=OUT", "--no-xattrs", "IMAGE")),
    ],
)
def test_a_file_system_of_the_tree_gives_everything_back_but_what_proc_and_sys_held(
    test_cache: Path, name: str, words: tuple[str, ...]
) -> None:
    def work(toolbox: Toolbox, directory: Path) -> tuple[list[bytes], int, bool]:
        root = tree(directory)
        image = write(name, root, toolbox, work=directory)
        first = image.read_bytes()
        out = directory / "out"
        out.mkdir()
        replaced = (word.replace("OUT", toolbox.path(out)).replace("IMAGE", toolbox.path(image)) for word in words)
        toolbox.run(list(replaced))
        wanted, found = expected(root), content(out)
        different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        return different, len(found), write(name, root, toolbox, work=directory).read_bytes() == first

    different, count, same = with_tools(test_cache, work, "filesystems")
    assert different == []
    assert count > 200
    assert same


def test_access_control_lists_are_left_out_of_squashfs_and_told(test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> tuple[list[str], str]:
        root = directory / "tree"
        for name in ("a", "b", "c", "d"):
            (root / name).mkdir(parents=True)
            os.setxattr(root / name, "system.posix_acl_default", torture.ACL)
        os.setxattr(root / "a", "user.kept", b"here")
        events = Remembered()
        target = directory / "N.squash"
        source = Source(root, None, work=directory)
        load("outputs", "squashfs")().write(Writing(source, target, request(directory), toolbox, events, EPOCH))
        done = toolbox.run(["rdsquashfs", "--xattr", "a", toolbox.path(target)])
        return [event.text for event in events.sent if isinstance(event, Note)], done.output

    texts, kept = with_tools(test_cache, work)
    assert texts == ["squashfs has no access control lists: those of a, b, c and 1 more are left out"]
    assert kept.split("=")[0] == "user.kept"


@pytest.mark.parametrize("name", ["squashfs", "erofs"])
def test_what_a_file_system_cannot_hold_is_named(test_cache: Path, name: str) -> None:
    def work(toolbox: Toolbox, directory: Path) -> str:
        import socket

        root = directory / "tree"
        root.mkdir()
        with socket.socket(socket.AF_UNIX) as listening:
            at = os.open(root, os.O_RDONLY)
            listening.bind(f"/proc/self/fd/{at}/answers")
            os.close(at)
        with pytest.raises(OutputError, match="answers is a socket") as caught:
            write(name, root, toolbox, work=directory)
        assert [path.name for path in directory.iterdir()] == ["tree"]
        return caught.value.hint

    assert with_tools(test_cache, work, "filesystems").startswith("remove it")
