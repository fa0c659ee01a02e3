"""Packages made here, unpacked by dibble, and looked at; where dpkg-deb is present, compared with what it makes."""

from __future__ import annotations

import lzma
import os
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import IO, Literal

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tests.unit import needed
from tests.unit.debs import COMPRESSORS, CONTROL, FORMATS, ME, ROOT, File, ar_of, deb_of, tar_of

from dibble.errors import HostError, PackageError, StoreError
from dibble.events import Events
from dibble.packages.unpack import deb as deb_module
from dibble.packages.unpack import stream as stream_module
from dibble.packages.unpack.deb import unpack, unpack_all

pytestmark = pytest.mark.unit


def unpacked(tmp_path: Path, data: bytes) -> Path:
    deb = tmp_path / "x_1_all.deb"
    deb.write_bytes(data)
    unpack(deb, tmp_path / "out")
    return tmp_path / "out"


def refused(tmp_path: Path, data: bytes, match: str = ".") -> None:
    with pytest.raises(PackageError, match=match) as caught:
        unpacked(tmp_path, data)
    assert "x_1_all.deb" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x_1_all.deb"], "nothing may stay"


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything of a tree that a package determines, less the times of directories (dpkg-deb loses some)."""
    first: dict[int, str] = {}
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        name = str(path.relative_to(root))
        is_directory = stat.S_ISDIR(status.st_mode)
        found[name] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            0 if is_directory else status.st_mtime,
            path.readlink() if path.is_symlink() else b"" if not path.is_file() else path.read_bytes(),
            "" if is_directory else first.setdefault(status.st_ino, name),
        )
    return found


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("tar_format", FORMATS)
def test_a_package_becomes_root_control_and_list(tmp_path: Path, suffix: str, tar_format: str) -> None:
    files = [
        ROOT,
        File("./usr/", kind="5", mode=0o750, mtime=1_500_000_000),
        File("./usr/a", b"A" * 1000, mode=0o755, mtime=1_600_000_000),
        File("./usr/odd", b"x" * 513),
        File("./usr/empty"),
        File("./usr/link", kind="2", link="../somewhere/else", mtime=1_400_000_000),
    ]
    out = unpacked(tmp_path, deb_of(files, suffix, tar_format))
    assert sorted(path.name for path in out.iterdir()) == ["contents", "control", "list", "root"]
    assert (out / "list").read_text() == "/.\n/usr\n/usr/a\n/usr/odd\n/usr/empty\n/usr/link\n"
    assert (out / "control/control").read_text().startswith("Package: x\n")
    usr = out / "root/usr"
    assert (usr / "a").read_bytes() == b"A" * 1000
    assert (usr / "odd").stat().st_size == 513
    assert (usr / "empty").stat().st_size == 0
    assert str((usr / "link").readlink()) == "../somewhere/else"
    assert (usr / "link").lstat().st_mtime == 1_400_000_000
    assert (usr / "a").stat().st_mtime == 1_600_000_000
    assert usr.stat().st_mtime == 1_500_000_000
    assert stat.S_IMODE(usr.stat().st_mode) == 0o750
    assert stat.S_IMODE((usr / "a").stat().st_mode) == 0o755


def test_setuid_bits_and_special_modes_stay(tmp_path: Path) -> None:
    files = [
        ROOT,
        File("./su", b"x", mode=0o4755),
        File("./wall", b"x", mode=0o2755),
        File("./tmp/", kind="5", mode=0o1777),
        File("./mail/", kind="5", mode=0o2775),
        File("./mail/box", b"x", mode=0o600),
    ]
    old = os.umask(0o077)
    try:
        root = unpacked(tmp_path, deb_of(files)) / "root"
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in root.iterdir()}
    assert modes == {"su": 0o4755, "wall": 0o2755, "tmp": 0o1777, "mail": 0o2775}
    assert (root / "mail/box").stat().st_gid == ME[1]
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out/list").stat().st_mode) == 0o644


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owners_are_those_of_the_package(tmp_path: Path) -> None:
    files = [
        ROOT,
        File("./d/", kind="5", mode=0o750, owner=(0, 42)),
        File("./d/f", b"x", mode=0o4755, owner=(101, 102)),
        File("./d/l", kind="2", link="f", owner=(7, 8)),
    ]
    folder = unpacked(tmp_path, deb_of(files)) / "root/d"
    owners = [(p.lstat().st_uid, p.lstat().st_gid) for p in (folder, folder / "f", folder / "l")]
    assert owners == [(0, 42), (101, 102), (7, 8)]
    assert stat.S_IMODE((folder / "f").stat().st_mode) == 0o4755


def test_hard_links_are_one_file(tmp_path: Path) -> None:
    files = [ROOT, File("./a", b"x"), File("./d/", kind="5", mode=0o755), File("./d/b", kind="1", link="./a")]
    root = unpacked(tmp_path, deb_of(files)) / "root"
    assert (root / "a").stat().st_ino == (root / "d/b").stat().st_ino


def test_a_fifo_is_made(tmp_path: Path) -> None:
    root = unpacked(tmp_path, deb_of([ROOT, File("./pipe", kind="6")])) / "root"
    assert (root / "pipe").is_fifo()


def test_extended_attributes_come_from_pax_headers(tmp_path: Path) -> None:
    files = [ROOT, File("./a", b"x", attributes={"SCHILY.xattr.user.note": "one\ntwo=three"})]
    root = unpacked(tmp_path, deb_of(files, tar_format="pax")) / "root"
    assert os.getxattr(root / "a", "user.note") == b"one\ntwo=three"


def test_times_below_a_second_stay(tmp_path: Path) -> None:
    root = unpacked(tmp_path, deb_of([ROOT, File("./a", mtime=1_700_000_000.25)], tar_format="pax")) / "root"
    assert (root / "a").stat().st_mtime_ns == 1_700_000_000_250_000_000


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
def test_long_names_stay(tmp_path: Path, tar_format: str) -> None:
    name = "/".join(["d" * 90] * 5)
    files = [ROOT, File(f"./{name}", b"x"), File("./l", kind="2", link="t" * 300)]
    out = unpacked(tmp_path, deb_of(files, tar_format=tar_format))
    assert (out / "root" / name).read_bytes() == b"x"
    assert str((out / "root/l").readlink()) == "t" * 300
    assert f"/{name}\n" in (out / "list").read_text()


def test_parents_that_are_not_listed_are_made(tmp_path: Path) -> None:
    out = unpacked(tmp_path, deb_of([File("usr/share/x", b"x")]))
    assert (out / "root/usr/share/x").read_bytes() == b"x"
    assert stat.S_IMODE((out / "root/usr").stat().st_mode) == 0o755
    assert (out / "list").read_text() == "/usr/share/x\n"


def test_of_a_name_that_comes_twice_the_later_counts(tmp_path: Path) -> None:
    root = unpacked(tmp_path, deb_of([ROOT, File("./a", b"old"), File("./a", b"new")])) / "root"
    assert (root / "a").read_bytes() == b"new"


def test_files_larger_than_the_buffers_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "INPUT", 100)
    monkeypatch.setattr(stream_module, "OUTPUT", 700)
    body = os.urandom(50_000)
    for suffix in COMPRESSORS:
        folder = tmp_path / f"with{suffix}"
        folder.mkdir()
        root = unpacked(folder, deb_of([ROOT, File("./a", body), File("./b", b"x")], suffix)) / "root"
        assert (root / "a").read_bytes() == body
        assert (root / "b").read_bytes() == b"x"


def test_xz_files_of_several_streams_are_read_to_the_end(tmp_path: Path) -> None:
    tar = tar_of([ROOT, File("./a", b"A" * 10_000)])
    data = lzma.compress(tar[:5000]) + lzma.compress(tar[5000:]) + b"\0" * 4
    control = lzma.compress(tar_of(CONTROL))
    deb = ar_of([("debian-binary", b"2.0\n"), ("control.tar.xz", control), ("data.tar.xz", data)])
    assert (unpacked(tmp_path, deb) / "root/a").read_bytes() == b"A" * 10_000


def test_members_of_no_concern_are_passed_over(tmp_path: Path) -> None:
    control, data = lzma.compress(tar_of(CONTROL)), lzma.compress(tar_of([ROOT]))
    members = [("debian-binary", b"2.1\nmore\n"), ("_gpgorigin", b"odd"), ("control.tar.xz", control)]
    out = unpacked(tmp_path, ar_of([*members, ("data.tar.xz", data), ("later", b"")]))
    assert (out / "list").read_text() == "/.\n"


@pytest.mark.parametrize(
    "files",
    [
        [File("/etc/passwd", b"x")],
        [File("../x", b"x")],
        [File("./a/../../x", b"x")],
        [File("./..", kind="5")],
        [File("./a", b"x"), File("./b", kind="1", link="../../etc/passwd")],
        [File("./a", b"x"), File("./b", kind="1", link="/etc/passwd")],
        [File("./a\nb", b"x")],
    ],
)
def test_unsafe_paths_are_refused(tmp_path: Path, files: list[File]) -> None:
    refused(tmp_path, deb_of([ROOT, *files]), "unsafe path")


@pytest.mark.parametrize("kind", ["0", "1", "2", "5", "6"])
def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path, kind: Literal["0", "1", "2", "5", "6"]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "x_1_all.deb").write_bytes(
        deb_of(
            [ROOT, File("./a", b"x"), File("./d", kind="2", link=str(outside)), File("./d/f", kind=kind, link="./a")]
        )
    )
    with pytest.raises(PackageError, match="as a directory and as something else"):
        unpack(tmp_path / "x_1_all.deb", tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_a_hard_link_through_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    files = [ROOT, File("./d", kind="2", link="/etc"), File("./f", kind="1", link="./d/passwd")]
    refused(tmp_path, deb_of(files), "which is no file before it")


def test_a_hard_link_to_what_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, deb_of([ROOT, File("./f", kind="1", link="./none")]), "which is no file before it")


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    files = [ROOT, File("./a/", kind="5", mode=0o755), File("./a/b", b"x"), File("./a", b"x")]
    refused(tmp_path, deb_of(files), "as a directory and as something else")


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    deb = ar_of([("debian-binary", b"2.0\n"), ("control.tar", tar_of(CONTROL)), ("data.tar.lz4", b"..")])
    refused(tmp_path, deb, 'data.tar.lz4", compressed in a way that is not known')


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not an ar archive"),
        (b"hello", "not an ar archive"),
        (ar_of([]), "not a Debian package"),
        (ar_of([("other", b"x")]), "not a Debian package"),
        (ar_of([("debian-binary", b"3.0\n")]), "format 3.0, not 2"),
        (ar_of([("debian-binary", b"2.0\n")]), r"has no control.tar"),
        (ar_of([("debian-binary", b"2.0\n"), ("control.tar", tar_of(CONTROL))]), r"has no data.tar"),
        (
            ar_of([("debian-binary", b"2.0\n")])[:-5]
            + b"garbage that is longer than a header of sixty bytes, surely so",
            "no member's header",
        ),
    ],
)
def test_what_is_no_package_is_refused(tmp_path: Path, data: bytes, match: str) -> None:
    refused(tmp_path, data, match)


SMALL = deb_of([ROOT, File("./a", b"0123456789" * 200), File("./b", kind="2", link="a")], ".xz")


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_truncated_package_is_refused_wherever_it_ends(tmp_path: Path, suffix: str) -> None:
    whole = deb_of([ROOT, File("./a", b"0123456789" * 20)], suffix)
    step = max(1, len(whole) // 150)
    for length in range(0, len(whole) - 1, step):
        refused(tmp_path, whole[:length])
        (tmp_path / "x_1_all.deb").unlink()


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_compressed_data_that_end_early_are_refused(tmp_path: Path, suffix: str) -> None:
    data = COMPRESSORS[suffix](tar_of([ROOT, File("./a", os.urandom(5000))]))
    control = lzma.compress(tar_of(CONTROL))
    for cut in (1, 8, 2000):
        deb = ar_of([("debian-binary", b"2.0\n"), ("control.tar.xz", control), (f"data.tar{suffix}", data[:-cut])])
        refused(tmp_path, deb, "truncated")
        (tmp_path / "x_1_all.deb").unlink()


def test_a_tar_without_its_end_is_refused(tmp_path: Path) -> None:
    tar = tar_of([ROOT, File("./a", b"x")])[: 3 * 512]
    deb = ar_of([("debian-binary", b"2.0\n"), ("control.tar", tar_of(CONTROL)), ("data.tar", tar)])
    refused(tmp_path, deb, "its tar archive ends early")


def test_a_flipped_bit_in_a_tar_header_is_refused(tmp_path: Path) -> None:
    tar = bytearray(tar_of([ROOT, File("./a", b"x")]))
    tar[512 + 2] ^= 1
    deb = ar_of([("debian-binary", b"2.0\n"), ("control.tar", tar_of(CONTROL)), ("data.tar", bytes(tar))])
    refused(tmp_path, deb, "wrong checksum")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_leads_to_anything_but_a_package_error(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    deb = tmp_path / "x_1_all.deb"
    deb.write_bytes(whole)
    try:
        unpack(deb, tmp_path / "out")
    except PackageError:
        assert [path.name for path in tmp_path.iterdir()] == ["x_1_all.deb"]
    else:
        shutil.rmtree(tmp_path / "out")


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\n\0\\", exclude_categories=["Cs"]), min_size=1, max_size=60
)


@st.composite
def packages(draw: st.DrawFn) -> list[File]:
    """Entries in a sensible order: directories before what is in them, targets before hard links."""
    files = [ROOT]
    folders = ["."]
    regular: list[str] = []
    taken = {".", "./.", "./.."}
    for _ in range(draw(st.integers(0, 12))):
        name = f"{draw(st.sampled_from(folders))}/{draw(names)}"
        if name in taken or name.endswith(("/.", "/..")):
            continue
        taken.add(name)
        kind = draw(st.sampled_from("0125"))
        mtime = draw(st.integers(0, 2**33 - 1))
        mode = draw(st.integers(0, 0o7777)) | 0o700
        if kind == "5":
            folders.append(name)
            files.append(File(f"{name}/", kind="5", mode=mode, mtime=mtime))
        elif kind == "2":
            target = draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200))
            files.append(File(name, kind="2", link=target, mode=0o777, mtime=mtime))
        elif kind == "1" and regular:
            target = draw(st.sampled_from(regular))
            original = next(file for file in files if file.name == target)
            files.append(File(name, kind="1", link=target, mode=original.mode, mtime=original.mtime))
        else:
            regular.append(name)
            files.append(File(name, draw(st.binary(max_size=2000)), mode=mode, mtime=mtime))
    return files


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=packages(), suffix=st.sampled_from([*COMPRESSORS]), tar_format=st.sampled_from(["gnu", "pax"]))
@example(files=[ROOT, File("./%", b"x")], suffix="", tar_format="gnu")
def test_what_was_put_in_comes_out(tmp_path: Path, files: list[File], suffix: str, tar_format: str) -> None:
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    root = unpacked(tmp_path, deb_of(files, suffix, tar_format)) / "root"
    found = snapshot(root)
    assert set(found) == {os.path.normpath(file.name) for file in files}
    for file in files:
        path = root / file.name
        status = path.lstat()
        if file.kind == "2":
            assert os.readlink(path) == file.link  # noqa: PTH115 - Path would tidy it
        else:
            assert stat.S_IMODE(status.st_mode) == file.mode
        if file.kind == "0":
            assert path.read_bytes() == file.content
        if file.kind == "1":
            assert path.samefile(root / file.link)
        assert status.st_mtime == file.mtime
    listed = (tmp_path / "out/list").read_bytes().decode().split("\n")
    assert listed == [*("/" + os.path.normpath(file.name) for file in files), ""]


@needed.programs("dpkg-deb")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=packages())
def test_the_tree_is_that_of_dpkg_deb(tmp_path: Path, files: list[File]) -> None:
    # tar, which dpkg-deb -x calls, lets a directory inherit the setgid bit of the one it is made in; dpkg does not.
    assume(not any(file.kind == "5" and file.mode & 0o2000 for file in files))
    for name in ("out", "theirs"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    ours = unpacked(tmp_path, deb_of(files)) / "root"
    subprocess.run(["dpkg-deb", "-x", tmp_path / "x_1_all.deb", tmp_path / "theirs"], check=True)
    assert snapshot(ours) == snapshot(tmp_path / "theirs")


def test_many_packages_are_unpacked_once_ever(tmp_path: Path) -> None:
    debs = {}
    for number in range(20):
        sha256 = f"{number:064x}"
        debs[sha256] = tmp_path / f"{number}.deb"
        debs[sha256].write_bytes(deb_of([ROOT, File("./number", str(number).encode())]))
    found = unpack_all(debs, tmp_path / "packages", Events())
    assert found == {sha256: tmp_path / "packages" / sha256[:2] / sha256 for sha256 in debs}
    assert [int((path / "root/number").read_text()) for path in found.values()] == list(range(20))
    for deb in debs.values():
        deb.unlink()
    assert unpack_all(debs, tmp_path / "packages", Events()) == found
    assert not list((tmp_path / "packages").rglob(".*.new"))


def test_the_error_of_a_worker_names_the_package(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.deb", tmp_path / "bad.deb"
    good.write_bytes(SMALL)
    bad.write_bytes(SMALL[:-100])
    with pytest.raises(PackageError, match=r"bad\.deb is truncated") as caught:
        unpack_all({"a" * 64: good, "b" * 64: bad}, tmp_path / "packages", Events())
    assert "fetch it again" in caught.value.hint


def test_a_worker_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = tmp_path / "good.deb", tmp_path / "bad.deb"
    good.write_bytes(SMALL)
    bad.write_bytes(SMALL)
    real = deb_module._unpack_open

    def die(file: IO[bytes], place: Path) -> None:
        if file.name.endswith("bad.deb"):
            os.kill(os.getpid(), signal.SIGKILL)
        real(file, place)

    monkeypatch.setattr(deb_module, "_unpack_open", die)
    with pytest.raises(HostError, match="was killed"):
        unpack_all({"a" * 64: good, "b" * 64: bad}, tmp_path / "packages", Events())
    monkeypatch.undo()
    found = unpack_all({"a" * 64: good, "b" * 64: bad}, tmp_path / "packages", Events())
    assert {path.parent.parent for path in found.values()} == {tmp_path / "packages"}
    assert not list((tmp_path / "packages").rglob(".*.new"))


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".out.new/root/old"
    left.mkdir(parents=True)
    (tmp_path / ".out.new/list").write_text("old")
    root = unpacked(tmp_path, SMALL) / "root"
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]
    assert not (tmp_path / ".out.new").exists()


def test_two_at_once_unpack_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = tmp_path / "x.deb"
    deb.write_bytes(SMALL)
    count: list[Path] = []
    real = deb_module._unpack_open

    def counted(file: IO[bytes], place: Path) -> None:
        count.append(place)
        real(file, place)

    monkeypatch.setattr(deb_module, "_unpack_open", counted)
    threads = [threading.Thread(target=unpack, args=(deb, tmp_path / "out")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.deb"]


def test_a_place_that_is_renamed_while_it_is_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb = tmp_path / "x.deb"
    deb.write_bytes(SMALL)
    met = [FileExistsError(17, "File exists", str(tmp_path / ".out.new"))]
    real = Path.mkdir

    def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if met and path.name == ".out.new":
            raise met.pop()
        real(path, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    unpack(deb, tmp_path / "out")
    assert not met
    assert (tmp_path / "out" / "root").is_dir()


def test_a_file_in_the_place_is_an_error(tmp_path: Path) -> None:
    deb = tmp_path / "x.deb"
    deb.write_bytes(SMALL)
    (tmp_path / ".out.new").touch()
    with pytest.raises(StoreError, match="File exists"):
        unpack(deb, tmp_path / "out")


def test_a_full_disk_is_an_error_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def write(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    deb = tmp_path / "x_1_all.deb"
    deb.write_bytes(SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(StoreError) as caught:
            unpack(deb, tmp_path / "out")
    assert str(tmp_path) in caught.value.message
    assert "DIB_IMAGE_CACHE" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["x_1_all.deb"]
