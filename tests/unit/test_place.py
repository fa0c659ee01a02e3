"""Files reach their final names whole or not at all; older ones are kept; checksums verify."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.output_values import Remembered, request

from dibble.errors import OutputError
from dibble.events import Events
from dibble.outputs.place import explained, move, place_trees, placing

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def put(cwd: Path, content: str, name: str = "N.raw", **changes: object) -> None:
    with placing(name, request(cwd, **changes), Events()) as fresh:
        fresh.write_text(content)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_nothing_stands_at_the_final_name_before_the_file_is_complete(tmp_path: Path) -> None:
    with placing("N.raw", request(tmp_path), Events()) as fresh:
        fresh.write_text("x")
        assert not (tmp_path / "N.raw").exists()
        assert all(name.startswith(".") for name in names(tmp_path))
    assert names(tmp_path) == ["N.raw"]
    assert (tmp_path / "N.raw").read_text() == "x"


def test_an_older_file_keeps_the_whole_suffix_of_its_format(tmp_path: Path) -> None:
    for _ in range(2):
        with placing("my.image.tar.zst", request(tmp_path), Events(), suffix="tar.zst") as fresh:
            fresh.write_text("x")
    [old] = [name for name in names(tmp_path) if name != "my.image.tar.zst"]
    assert re.fullmatch(r"my\.image-\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d\.tar\.zst", old)


def test_a_failure_leaves_the_older_file_and_its_checksums_as_they_were(tmp_path: Path) -> None:
    put(tmp_path, "old", checksums=("md5",))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), placing("N.raw", request(tmp_path), Events()) as fresh:  # noqa: PT012
        fresh.write_text("half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_older_file_gets_a_dated_name_and_takes_its_checksums_along(tmp_path: Path) -> None:
    put(tmp_path, "old", checksums=("md5", "sha256"))
    inode = (tmp_path / "N.raw").stat().st_ino
    put(tmp_path, "new", checksums=("md5",))
    assert (tmp_path / "N.raw").read_text() == "new"
    [old] = [name for name in names(tmp_path) if re.fullmatch(r"N-\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d\.raw", name)]
    assert (tmp_path / old).read_text() == "old"
    assert (tmp_path / old).stat().st_ino == inode
    assert names(tmp_path) == sorted([old, f"{old}.md5", f"{old}.sha256", "N.raw", "N.raw.md5"])
    assert (tmp_path / f"{old}.md5").read_text() == f"{hashlib.md5(b'old').hexdigest()}  {old}\n"
    assert (tmp_path / "N.raw.md5").read_text() == f"{hashlib.md5(b'new').hexdigest()}  N.raw\n"


def test_two_older_files_of_one_second_get_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "2026.01.02-03.04.05")
    for content in ("1", "2", "3", "4"):
        put(tmp_path, content)
    found = {name: (tmp_path / name).read_text() for name in names(tmp_path)}
    stamp = "N-2026.01.02-03.04.05"
    assert found == {f"{stamp}.raw": "1", f"{stamp}-2.raw": "2", f"{stamp}-3.raw": "3", "N.raw": "4"}


def test_an_older_file_on_a_file_system_without_hard_links_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    put(tmp_path, "1")
    monkeypatch.setattr(os, "link", refuse)
    put(tmp_path, "2")
    assert sorted((tmp_path / name).read_text() for name in names(tmp_path)) == ["1", "2"]


def test_overwriting_leaves_neither_the_older_file_nor_its_checksums(tmp_path: Path) -> None:
    put(tmp_path, "old", checksums=("md5", "sha256"))
    put(tmp_path, "new", overwrite=True)
    assert names(tmp_path) == ["N.raw"]
    assert (tmp_path / "N.raw").read_text() == "new"


@pytest.mark.parametrize("name", ["N.raw", "a dir/N $x.raw", 'back\\slash".raw', "l\nf.raw"])
def test_md5sum_and_sha256sum_accept_the_checksum_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "a dir").mkdir()
    put(tmp_path, "content", name, checksums=("md5", "sha256"))
    for kind in ("md5", "sha256"):
        subprocess.run([f"{kind}sum", "--check", "--strict", "--quiet", f"{name}.{kind}"], cwd=tmp_path, check=True)


def test_a_file_is_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with placing("N.raw", request(tmp_path), Events()) as fresh:
            fresh.touch(0o600)
    finally:
        os.umask(old)
    assert (tmp_path / "N.raw").stat().st_mode & 0o777 == 0o640


KILLED = """
import os, signal, sys
from pathlib import Path
from dibble.events import Events
from dibble.outputs.place import placing
from tests.unit.output_values import request
with placing("N.raw", request(Path(sys.argv[1])), Events()) as fresh:
    fresh.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = names(tmp_path)
    assert left.startswith(".N.raw.new-")
    put(tmp_path, "whole")
    assert names(tmp_path) == ["N.raw"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with placing("N.raw", request(tmp_path), Events()) as fresh:
        fresh.write_text("slow")
        put(tmp_path, "quick")
        assert fresh.read_text() == "slow"
    assert (tmp_path / "N.raw").read_text() == "slow"
    assert "quick" in {(tmp_path / name).read_text() for name in names(tmp_path)}


def test_a_directory_that_is_being_made_is_left_alone_and_an_old_one_is_removed(tmp_path: Path) -> None:
    young, old = tmp_path / ".N.raw.new-young", tmp_path / ".N.raw.new-old"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 3600,) * 2)
    put(tmp_path, "x")
    assert names(tmp_path) == [young.name, "N.raw"]


def test_a_name_of_the_greatest_length_is_written(tmp_path: Path) -> None:
    put(tmp_path, "x", "é" * 120 + ".raw")
    assert len(names(tmp_path)) == 1


def test_a_missing_directory_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        put(tmp_path, "x", "gone/N.raw")
    assert f"{tmp_path}/gone/N.raw" in caught.value.message
    assert caught.value.hint == f"mkdir -p {tmp_path}/gone"


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.ENOSPC, "no room for", "free space in"),
        (errno.EDQUOT, "no room for", "free space in"),
        (errno.EACCES, "cannot be written: Permission denied", "writable"),
        (errno.EROFS, "cannot be written: Read-only file system", "writable"),
    ],
)
def test_a_file_system_that_refuses_is_told_with_what_to_do(
    tmp_path: Path, number: int, message: str, hint: str
) -> None:
    with pytest.raises(OutputError) as caught, explained(tmp_path / "N.raw"):
        raise OSError(number, os.strerror(number))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert str(tmp_path) in caught.value.hint


def test_a_directory_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "N.raw").mkdir()
    with pytest.raises(OutputError, match="move away what is in the way"):
        put(tmp_path, "x", overwrite=True)
    assert names(tmp_path) == ["N.raw"]


def test_the_user_hears_of_the_older_file(tmp_path: Path) -> None:
    put(tmp_path, "1")
    events = Remembered()
    with placing("N.raw", request(tmp_path), events) as fresh:
        fresh.write_text("2")
    [old] = [name for name in names(tmp_path) if name != "N.raw"]
    assert [getattr(event, "text", "") for event in events.sent] == [f"the older N.raw is now {old}"]


def test_a_file_moves_between_file_systems_with_its_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "no")

    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(1 << 24)
        file.seek(1 << 20)
        file.write(b"x" * 5000)
    content, allocated = source.read_bytes(), source.stat().st_blocks
    monkeypatch.setattr(type(source), "rename", refuse)
    move(source, target)
    assert not source.exists()
    assert target.read_bytes() == content
    assert target.stat().st_blocks <= allocated


def test_a_tree_is_merged_and_its_files_replace_others(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "N.d" / "deep").mkdir(parents=True)
    (source / "N.d" / "deep" / "new").write_text("new")
    (source / "N.vmlinuz").write_text("kernel")
    (source / "N.vmlinuz").chmod(0o600)
    (source / "script").write_text("run")
    (source / "script").chmod(0o700)
    (source / "link").symlink_to("N.vmlinuz")
    (target / "N.d").mkdir(parents=True)
    (target / "N.d" / "stays").write_text("stays")
    (target / "N.vmlinuz").write_text("older")
    (target / "other").write_text("other")
    place_trees([source], target)
    place_trees([source], target)
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {
        "N.d/deep/new": "new", "N.d/stays": "stays", "N.vmlinuz": "kernel", "link": "kernel", "other": "other",
        "script": "run",
    }  # fmt: skip
    assert (target / "link").is_symlink()
    assert (target / "N.vmlinuz").stat().st_mode & 0o777 == 0o644
    assert (target / "script").stat().st_mode & 0o111 == 0o100
    assert (source / "N.vmlinuz").stat().st_ino != (target / "N.vmlinuz").stat().st_ino


def test_later_trees_count_more_and_their_whiteouts_hide_what_earlier_ones_have(tmp_path: Path) -> None:
    first, second, target = (tmp_path / name for name in ("first", "second", "target"))
    for name in ("kept", "gone", "replaced", "deep/kept", "deep/gone", "file/below", "folder"):
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_text("first")
    (second / "deep").mkdir(parents=True)
    for name in ("gone", "deep/gone", "host"):
        os.mkfifo(second / name)  # as a whiteout, which only root makes, this is no file
    for name in ("replaced", "file", "folder/below"):
        (second / name).parent.mkdir(parents=True, exist_ok=True)
        (second / name).write_text("second")
    target.mkdir()
    (target / "host").write_text("stays")
    place_trees([first, second], target)
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {
        "kept": "first", "replaced": "second", "deep/kept": "first", "file": "second", "folder/below": "second",
        "host": "stays",
    }  # fmt: skip
