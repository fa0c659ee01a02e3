"""Layers come out of an archive as they went in, and whatever is not such an archive is refused."""

# Names in a tree are bytes, which pathlib does not take.
# ruff: noqa: PTH101, PTH102, PTH115, PTH123, PTH211
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import socket
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit import needed

from dibble.store.archive import CHUNK, Archive, NotPortable, pack, unpack
from dibble.store.refused import EntryRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.unit
ROOT = os.getuid() == 0
EPOCH_NS = 1_767_225_600_000_000_001


def packed(root: Path, *names: str) -> tuple[Archive, bytes]:
    file = io.BytesIO()
    archive = pack({name: root / name for name in names}, file)
    return archive, file.getvalue()


def unpacked(archive: Archive, data: bytes, target: Path, *tops: str) -> None:
    target.mkdir()
    unpack(io.BytesIO(data), archive, target, tops)


def described(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about every entry below a directory that a layer is made of."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    base = os.fsencode(root)
    for folder, directories, files in os.walk(base):
        for name in sorted(directories) + sorted(files):
            path = folder + b"/" + name
            status = os.lstat(path)
            relative = path[len(base) + 1 :]
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            attributes = {
                n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)
            }
            found[relative] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                status.st_mtime_ns,
                content,
                attributes,
            )
        for name in sorted(files):
            path = folder + b"/" + name
            first = inodes.setdefault(os.lstat(path).st_ino, path[len(base) + 1 :])
            found[path[len(base) + 1 :]] += (first,)
    return found


NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
TIMES = st.integers(-(10**18), 4 * 10**18)
IDS = st.sampled_from([0, 1, 1000, 65534]) if ROOT else st.just(os.getuid())
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["user.overlay.opaque", "user.overlay.redirect", "user.x", "user.ü y"]),
    st.binary(max_size=40),
    max_size=2,
)


@dataclasses.dataclass(frozen=True)
class Node:
    """One entry to make; `content` are bytes, a link's target, or what `kind` needs."""

    kind: str
    mode: int
    uid: int
    mtime: int
    content: bytes
    attributes: dict[str, bytes]


NODES = st.builds(
    Node,
    st.sampled_from(["file", "directory", "symlink", "fifo", "link", "sparse", *(["whiteout"] if ROOT else [])]),
    st.integers(0, 0o7777),
    IDS,
    TIMES,
    st.binary(max_size=2000),
    ATTRIBUTES,
)


def make(root: Path, tree: dict[tuple[bytes, ...], Node]) -> None:
    """Make the nodes whose parents are directories, then dress them, innermost first."""
    base = os.fsencode(root)
    os.mkdir(base + b"/0")
    made: dict[bytes, Node] = {}
    files: list[bytes] = []
    for parts, node in sorted(tree.items(), key=lambda item: len(item[0])):
        path = b"/".join((base, b"0", *parts))
        parent = path.rpartition(b"/")[0]
        if len(parts) > 1 and (parent not in made or made[parent].kind != "directory"):
            continue
        kind = node.kind
        if kind == "link":
            if not files:
                continue
            os.link(files[-1], path, follow_symlinks=False)
            continue
        if kind == "directory":
            os.mkdir(path)
        elif kind == "symlink":
            os.symlink(node.content.replace(b"\0", b"")[:200] or b"x", path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "whiteout":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        else:
            with open(path, "wb") as file:
                if kind == "sparse":
                    file.truncate(1 << 17)
                    file.seek(1 << 16)
                file.write(node.content)
        if kind != "directory":
            files.append(path)
        made[path] = node
    for path, node in sorted(made.items(), reverse=True):
        os.chown(path, node.uid, node.uid, follow_symlinks=False)
        if node.kind != "symlink":
            # A directory must stay open to an ordinary user's test.
            os.chmod(path, node.mode | (0 if ROOT else 0o700))
        if node.kind in ("file", "directory", "sparse"):
            for key, value in node.attributes.items():
                os.setxattr(path, key, value)
        os.utime(path, ns=(EPOCH_NS, node.mtime), follow_symlinks=False)
    os.utime(base + b"/0", ns=(EPOCH_NS, 0))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), NODES, max_size=12))
@example({(b"new\nline",): Node("file", 0o4755, os.getuid(), 1, b"x", {"user.x": b"\xff\0="})})
@example(
    {
        (b"\xff" * 255,): Node("directory", 0o755, os.getuid(), -1, b"", {}),
        (b"\xff" * 255, b"a" * 255): Node("file", 0, os.getuid(), 0, b"", {}),
    }
)
def test_a_tree_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[bytes, ...], Node]
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    try:
        (folder / "in").mkdir()
        make(folder / "in", tree)
        archive, data = packed(folder / "in", "0")
        assert (archive.size, archive.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        unpacked(archive, data, folder / "out", "0")
        assert described(folder / "out") == described(folder / "in")
        assert packed(folder / "out", "0") == (archive, data), "the same tree gives the same archive"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with (tmp_path / "0/disk").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"data" * 5000)
        file.truncate(256 << 20)
    archive, data = packed(tmp_path, "0")
    assert archive.unpacked < 1 << 20, "holes are not even compressed"
    unpacked(archive, data, tmp_path / "out", "0")
    found = (tmp_path / "out/0/disk").stat()
    assert (found.st_size, found.st_blocks * 512 < 1 << 20) == (256 << 20, True)
    with (tmp_path / "out/0/disk").open("rb") as file:
        file.seek(64 << 20)
        assert file.read(20004) == b"data" * 5000 + bytes(4)


def test_other_programs_can_open_an_archive(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0/file").write_bytes(b"text")
    _, data = packed(tmp_path, "0")
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    with tarfile.open(fileobj=io.BytesIO(plain)) as found:
        assert found.getnames() == ["0", "0/file"]


def test_handles_of_this_machine_s_inodes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for name in ("origin", "uuid", "opaque"):
        os.setxattr(tmp_path / "0", f"user.overlay.{name}", b"y")
    archive, data = packed(tmp_path, "0")
    unpacked(archive, data, tmp_path / "out", "0")
    assert os.listxattr(tmp_path / "out/0") == ["user.overlay.opaque"]


def test_a_socket_is_named_and_not_packed(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "0/agent"))
        with pytest.raises(NotPortable, match='"0/agent", which is a socket'):
            packed(tmp_path, "0")


@needed.devices()
def test_a_device_is_named_and_not_packed(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    os.mknod(tmp_path / "0/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises(NotPortable, match='"0/null", which is a device'):
        packed(tmp_path, "0")


# --- what is not such an archive


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    info.uid, info.gid = os.getuid(), os.getgid()
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def forged(*entries: tuple[tarfile.TarInfo, bytes]) -> tuple[Archive, bytes]:
    """An archive with a true digest, as somebody makes it who may write to a remote cache."""
    plain = b"".join(
        info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)
        for info, data in entries
    ) + bytes(1024)
    return sealed(plain, len(entries))


def sealed(plain: bytes, entries: int) -> tuple[Archive, bytes]:
    data = zstandard.ZstdCompressor().compress(plain)
    return Archive(hashlib.sha256(data).hexdigest(), len(data), len(plain), entries), data


TOP = entry("0", tarfile.DIRTYPE, mode=0o755)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([TOP, entry("0/../../x")], "unsafe path"),
        ([TOP, entry("../x")], "unsafe path"),
        ([entry("/etc/passwd")], "unsafe path"),
        ([entry(".")], "unsafe path"),
        ([entry("0//x")], "unsafe path"),
        ([entry("record.json")], "does not belong there"),
        ([entry("0/x")], "whose directory is not in it"),
        ([TOP, entry("0/l", tarfile.SYMTYPE, linkname="/etc"), entry("0/l/passwd")], "whose directory is not in it"),
        ([TOP, entry("0/f"), entry("0/f")], "twice"),
        ([TOP, TOP], "twice"),
        ([TOP, entry("0/l", tarfile.SYMTYPE, linkname="/etc/passwd"), entry("0/l", data=b"x")], "twice"),
        ([TOP, entry("0/h", tarfile.LNKTYPE, linkname="/etc/passwd")], "no file before it"),
        ([TOP, entry("0/h", tarfile.LNKTYPE, linkname="0/../../etc/passwd")], "no file before it"),
        ([TOP, entry("0/h", tarfile.LNKTYPE, linkname="0/h")], "no file before it"),
        ([TOP, entry("0/h", tarfile.LNKTYPE, linkname="0")], "no file before it"),
        ([TOP, entry("0/null", tarfile.CHRTYPE, devmajor=1, devminor=3)], "device"),
        ([TOP, entry("0/disk", tarfile.BLKTYPE, devmajor=8, devminor=0)], "device"),
        ([TOP, entry("0/x", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})], "no layer has"),
        ([TOP, entry("0/x", pax_headers={"SCHILY.xattr.security.selinux": "y"})], "no layer has"),
    ],
)  # fmt: skip
def test_what_leaves_the_layer_is_refused(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], said: str
) -> None:
    archive, data = forged(*entries)
    with pytest.raises(EntryRefused, match=said):
        unpacked(archive, data, tmp_path / "out", "0")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def layer(tmp_path: Path) -> tuple[Archive, bytes]:
    (tmp_path / "in/0/folder").mkdir(parents=True)
    (tmp_path / "in/0/folder/random").write_bytes(os.urandom(3 * CHUNK))
    (tmp_path / "in/0/zeros").write_bytes(bytes(1 << 20))
    return packed(tmp_path / "in", "0")


def test_another_content_is_refused_with_both_digests(tmp_path: Path) -> None:
    archive, _ = layer(tmp_path)
    (tmp_path / "in/0/zeros").write_bytes(bytes((1 << 20) - 1) + b"x")
    other, forgery = packed(tmp_path / "in", "0")
    claimed = dataclasses.replace(other, sha256=archive.sha256)
    with pytest.raises(EntryRefused, match=f"{other.sha256}, not {archive.sha256}"):
        unpacked(claimed, forgery, tmp_path / "out", "0")


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -CHUNK])
def test_a_truncated_archive_is_refused(tmp_path: Path, kept: int) -> None:
    archive, data = layer(tmp_path)
    with pytest.raises(EntryRefused):
        unpacked(archive, data[:kept], tmp_path / "out", "0")


def test_an_archive_with_more_behind_it_is_refused(tmp_path: Path) -> None:
    archive, data = layer(tmp_path)
    with pytest.raises(EntryRefused):
        unpacked(archive, data + b"x", tmp_path / "out", "0")


def test_a_bomb_is_refused_at_the_stated_size(tmp_path: Path) -> None:
    bomb = b"".join(
        (entry("0", tarfile.DIRTYPE)[0].tobuf(), entry("0/x", size=1 << 28)[0].tobuf(), bytes(1 << 28), bytes(1024))
    )
    archive, data = sealed(bomb, 2)
    assert archive.size < 1 << 16
    modest = dataclasses.replace(archive, unpacked=1 << 20)
    with pytest.raises(EntryRefused, match=f"more than the {1 << 20} bytes"):
        unpacked(modest, data, tmp_path / "out", "0")
    assert (tmp_path / "out/0/x").stat().st_size <= 1 << 20


def test_more_entries_than_stated_are_refused(tmp_path: Path) -> None:
    archive, data = forged(TOP, *(entry(f"0/{number}") for number in range(50)))
    with pytest.raises(EntryRefused, match="more than the 3 entries"):
        unpacked(dataclasses.replace(archive, entries=3), data, tmp_path / "out", "0")


def test_a_chain_of_headers_and_a_table_of_holes_without_an_end_are_refused(tmp_path: Path) -> None:
    pax = entry("x", tarfile.XHDTYPE, b"11 path=ab\n")
    archive, data = forged(*([pax] * 5000))
    with pytest.raises(EntryRefused):
        unpacked(archive, data, tmp_path / "one", "0")
    holes, table = entry("0/x", data=b"99999999999\n1\n2".ljust(512, b"\n"))
    holes.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "0/x",
        "GNU.sparse.realsize": "9",
    }
    archive, data = forged(TOP, (holes, table))
    with pytest.raises(EntryRefused):
        unpacked(archive, data, tmp_path / "two", "0")


def damaged(plain: bytes) -> Iterator[Callable[[int, int], bytes]]:
    yield lambda at, value: plain[: at % len(plain)] + bytes([value]) + plain[at % len(plain) + 1 :]
    yield lambda at, _: plain[: at % len(plain)]
    yield lambda at, value: plain[: at % len(plain)] + bytes([value]) * 512 + plain[at % len(plain) :]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2), st.integers(0, 1 << 20), st.integers(0, 255))
def test_a_damaged_tar_with_a_true_digest_is_refused_or_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, how: int, at: int, value: int
) -> None:
    pieces = [
        TOP,
        entry("0/d", tarfile.DIRTYPE),
        entry("0/d/f", data=b"text" * 300, pax_headers={"mtime": "1.5", "SCHILY.xattr.user.x": "y"}),
    ]
    pieces += [entry("0/l", tarfile.SYMTYPE, linkname="d/f"), entry("0/h", tarfile.LNKTYPE, linkname="0/d/f")]
    whole = b"".join(info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512) for info, data in pieces) + bytes(
        1024
    )
    archive, data = sealed(list(damaged(whole))[how](at, value), len(pieces))
    folder = tmp_path_factory.mktemp("fuzz")
    with contextlib.suppress(EntryRefused, OSError):
        unpacked(archive, data, folder / "out", "0")
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert {path.name for path in (folder / "out").iterdir()} <= {"0"}
    shutil.rmtree(folder, ignore_errors=True)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_bytes_that_are_no_archive_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    archive = Archive(hashlib.sha256(data).hexdigest(), len(data), 10_000, 3)
    with pytest.raises(EntryRefused):
        unpacked(archive, data, folder / "out", "0")
    assert list((folder / "out").iterdir()) == []
