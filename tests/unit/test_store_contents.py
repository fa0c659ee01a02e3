"""What an entry holds is recorded with it; every later change of it is found and named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dibble.store import contents
from dibble.store.contents import Difference, NoContents, differences, seal

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    made = tmp_path / "entry"
    (made / "0/etc").mkdir(parents=True)
    (made / "0/etc/file").write_text("text")
    (made / "0/etc/link").symlink_to("file")
    (made / "0/large").write_bytes(b"x" * (3 << 20))
    (made / "record.json").write_text("{}")
    seal(made)
    return made


def test_what_nobody_touched_has_no_differences(entry: Path) -> None:
    assert list(differences(entry)) == []
    assert sorted(path.name for path in entry.iterdir()) == ["0", "contents", "record.json"]


def keep_time(path: Path, change: Callable[[], object]) -> None:
    """Change a file in a way that its times do not tell."""
    status = path.stat()
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "path", "what"),
    [
        (lambda at: keep_time(at / "0/etc/file", lambda: (at / "0/etc/file").write_text("tixt")),
         "0/etc/file", "has other content"),
        (lambda at: keep_time(at / "0/large", lambda: (at / "0/large").write_bytes(b"x" * (4 << 20))),
         "0/large", "has another size"),
        (lambda at: (at / "0/etc/file").chmod(0o755), "0/etc/file", "has another mode (100755, not 100644)"),
        (lambda at: os.utime(at / "0/etc/file", (5, 5)), "0/etc/file", "has another time (5, not"),
        (lambda at: (at / "0/large").unlink(), "0/large", "is missing"),
        (lambda at: (at / "0/etc/new").touch(), "0/etc/new", "was not there"),
        (lambda at: ((at / "0/etc/link").unlink(), (at / "0/etc/link").symlink_to("fil2")), "0/etc/link", "has"),
        (lambda at: ((at / "0/large").unlink(), (at / "0/large").mkdir()), "0/large", "is of another type"),
        (lambda at: (at / "record.json").write_text("[]"), "record.json", "has"),
    ],
)  # fmt: skip
def test_a_change_is_named_with_its_file(entry: Path, change: Callable[[Path], object], path: str, what: str) -> None:
    for folder in (entry / "0/etc", entry / "0"):  # a directory's own time shows that a name was changed
        os.utime(folder, (7, 7))
    seal(entry)
    change(entry)
    for folder in (entry / "0/etc", entry / "0"):
        os.utime(folder, (7, 7))
    found = list(differences(entry))
    assert [difference.path for difference in found] == [path]
    assert found[0].what.startswith(what)


@pytest.mark.skipif(os.getuid() != 0, reason="changes an owner")
def test_another_owner_is_a_difference(entry: Path) -> None:
    os.chown(entry / "0/etc/file", 7, 0)
    assert list(differences(entry)) == [Difference("0/etc/file", "has another owner (7, not 0)")]


def test_another_extended_attribute_is_a_difference(entry: Path) -> None:
    os.setxattr(entry / "0/etc/file", "user.overlay.opaque", b"y")
    assert list(differences(entry)) == [Difference("0/etc/file", "has other extended attributes")]


@pytest.mark.parametrize("place", [0, 20, -2])
def test_a_damaged_record_of_contents_is_told(entry: Path, place: int) -> None:
    data = bytearray((entry / "contents").read_bytes())
    data[place] ^= 1
    (entry / "contents").write_bytes(data)
    with pytest.raises(NoContents, match="damaged"):
        list(differences(entry))


def test_no_record_and_one_of_another_version_are_told(entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "HEAD", b"dibble contents 2")
    with pytest.raises(NoContents, match="another version"):
        contents.read(entry)
    (entry / "contents").unlink()
    with pytest.raises(NoContents, match="no record"):
        contents.read(entry)


def test_a_linked_file_must_be_the_file_of_its_package(entry: Path, tmp_path: Path) -> None:
    os.link(entry / "0/large", tmp_path / "package")
    seal(entry, linked=True)
    inode = (tmp_path / "package").stat().st_ino
    assert list(differences(entry, linked={inode})) == []
    assert list(differences(entry)) == [Difference("0/large", "is no longer the file of its package")]


def test_links_within_an_entry_are_recorded_there(entry: Path) -> None:
    """A set of packages from elsewhere has no links into `packages/`, but links among its own names."""
    os.link(entry / "0/large", entry / "0/other")
    seal(entry, linked=True)
    assert list(differences(entry)) == []
    assert contents.LINKED not in {fields[5] for fields in contents.read(entry).values()}


def test_holes_may_move_but_bytes_may_not(tmp_path: Path) -> None:
    made = tmp_path / "entry"
    made.mkdir()
    with (made / "disk").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"data")
        file.truncate(30 << 20)
    seal(made)
    assert b" holes:" in (made / "contents").read_bytes()
    status = (made / "disk").stat()
    data = (made / "disk").read_bytes()
    (made / "disk").write_bytes(data)  # without holes
    os.utime(made / "disk", ns=(0, status.st_mtime_ns))
    assert list(differences(made)) == []
    (made / "disk").write_bytes(data.replace(b"data", b"dota"))
    os.utime(made / "disk", ns=(0, status.st_mtime_ns))
    assert list(differences(made)) == [Difference("disk", "has other content")]


NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES.filter(lambda name: name not in (b".", b"..", b"contents")), st.binary(), max_size=5))
def test_any_name_and_content_is_recorded_and_found_again(
    tmp_path_factory: pytest.TempPathFactory, files: dict[bytes, bytes]
) -> None:
    made = tmp_path_factory.mktemp("entry")
    for name, data in files.items():
        Path(os.fsdecode(os.fsencode(made) + b"/" + name)).write_bytes(data)
    seal(made)
    assert list(differences(made)) == []
    assert contents.read(made).keys() == files.keys()
    for name in files:
        Path(os.fsdecode(os.fsencode(made) + b"/" + name)).unlink()
    assert [difference.what for difference in differences(made)] == ["is missing"] * len(files)
