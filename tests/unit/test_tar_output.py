"""The tar output: what is in it, in which order, and that it is the same bytes each time."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import needed
from tests.unit.output_values import EPOCH, request

from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.outputs.tar import Tar
from dibble.outputs.tar_file import RECORD
from dibble.sandbox.toolbox import HostToolbox
from dibble.tree.ustar import pax_record

pytestmark = pytest.mark.unit


def archive(root: Path) -> Path:
    target = root.parent / "N.tar"
    Tar().write(Writing(Source(root, None), target, request(root.parent), HostToolbox(), Events(), EPOCH))
    return target


def members(root: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive(root)) as tar:
        return {info.name: info for info in tar.getmembers()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


def test_entries_begin_with_a_dot_and_are_sorted_by_bytes(root: Path) -> None:
    for name in ("b", "a/z", "a/B", "a.d", "é"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    data = archive(root).read_bytes()
    assert data.startswith(b"./\0")
    assert list(members(root)) == [".", "./a", "./a/B", "./a/z", "./a.d", "./b", "./é"]


def test_proc_and_sys_are_stored_empty_and_dev_as_it_is(root: Path) -> None:
    for name in ("proc/1/stat", "sys/block/x", "dev/null", "usr/proc/x"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    assert list(members(root)) == [
        ".", "./dev", "./dev/null", "./proc", "./sys", "./usr", "./usr/proc", "./usr/proc/x"
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (4 << 20) + 7])
def test_content_comes_back(root: Path, size: int) -> None:
    content = os.urandom(size)
    (root / "file").write_bytes(content)
    (root / "next").write_bytes(b"next")
    with tarfile.open(archive(root)) as tar:
        for name, expected in (("./file", content), ("./next", b"next")):
            file = tar.extractfile(name)
            assert file is not None
            assert file.read() == expected
    assert (root.parent / "N.tar").stat().st_size % RECORD == 0


def test_owners_are_numbers_and_modes_are_whole(root: Path) -> None:
    (root / "file").touch()
    (root / "file").chmod(0o6751)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    found = members(root)
    assert found["./file"].mode == 0o6751
    assert found["./sticky"].mode == 0o1777
    assert (found["./file"].uid, found["./file"].gid) == (os.getuid(), os.getgid())
    assert found["./file"].uname == found["./file"].gname == ""


@needed.devices()
def test_great_owners_and_devices_are_stored(root: Path) -> None:
    (root / "file").touch()
    os.chown(root / "file", 1_000_000, 3_000_000)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "disk", 0o60660, os.makedev(259, 70000))
    found = members(root)
    assert (found["./file"].uid, found["./file"].gid) == (1_000_000, 3_000_000)
    assert found["./null"].ischr()
    assert (found["./null"].devmajor, found["./null"].devminor) == (1, 3)
    assert found["./disk"].isblk()
    assert (found["./disk"].devmajor, found["./disk"].devminor) == (259, 70000)


def test_times_after_the_epoch_become_the_epoch_and_older_ones_stay(root: Path) -> None:
    for name, mtime in (("new", EPOCH + 1), ("old", 86400), ("before", -5)):
        (root / name).touch()
        os.utime(root / name, (mtime, mtime))
    found = members(root)
    assert {name: found[f"./{name}"].mtime for name in ("new", "old", "before")} == {
        "new": EPOCH, "old": 86400, "before": -5
    }  # fmt: skip


def test_links_of_both_kinds_a_fifo_and_no_socket_are_stored(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "first").write_text("x" * 600)
    (root / "second").hardlink_to(root / "a" / "first")
    (root / "outside").write_text("y")
    (root.parent / "elsewhere").hardlink_to(root / "outside")
    (root / "symbolic").symlink_to("a/" + "long" * 40)
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    found = members(root)
    assert found["./a/first"].isreg()
    assert found["./second"].islnk()
    assert found["./second"].linkname == "./a/first"
    assert found["./second"].size == 0
    assert found["./outside"].isreg()
    assert found["./symbolic"].linkname == "a/" + "long" * 40
    assert found["./fifo"].isfifo()
    assert "./socket" not in found


def test_long_names_and_names_that_are_not_utf_8_come_back(root: Path) -> None:
    (root / ("d" * 150)).mkdir()
    (root / ("d" * 150) / ("f" * 99)).write_text("x")
    Path(os.fsdecode(bytes(root) + b"/caf\xe9")).write_text("x")
    for length in (98, 99):  # 100 and 101 bytes with the "./"; a header has room for 100
        (root / ("g" * length)).touch()
        (root / f"to-{length}").symlink_to("t" * (length + 2))
    found = members(root)
    for length in (98, 99):
        assert f"./{'g' * length}" in found
        assert found[f"./to-{length}"].linkname == "t" * (length + 2)
    assert f"./{'d' * 150}/{'f' * 99}" in found
    assert os.fsdecode(b"./caf\xe9") in found


def test_extended_attributes_are_stored_but_not_those_of_an_overlay(root: Path) -> None:
    (root / "file").touch()
    value = bytes(range(256)) + b"\n7 a=b\n"
    try:
        os.setxattr(root / "file", "user.binary", value)
        os.setxattr(root / "file", "user.a", b"1")
        os.setxattr(root / "file", "user.overlay.opaque", b"y")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    found = members(root)["./file"].pax_headers
    kept = {key: text.encode("utf-8", "surrogateescape") for key, text in found.items() if "xattr" in key}
    assert kept == {"SCHILY.xattr.user.a": b"1", "SCHILY.xattr.user.binary": value}


def test_two_trees_of_the_same_content_give_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name, order in (("one", "abc"), ("two", "cab")):
        tree = tmp_path / name / "tree"
        tree.mkdir(parents=True)
        for letter in order:
            (tree / letter).write_text(letter)
        made.append(archive(tree).read_bytes())
    assert made[0] == made[1]


@given(st.integers(0, 20_000))
def test_a_record_says_its_own_length(length: int) -> None:
    record = pax_record(b"key", b"x" * length)
    assert int(record.split(b" ")[0]) == len(record)
    assert record.endswith(b"\n")
