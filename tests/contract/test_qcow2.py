"""qcow2 files as QEMU sees them: sound, the same content as the raw disk, the same bytes each time."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from tests.unit.output_values import EPOCH, disk, request

from dibble.errors import ToolFailed
from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.outputs.qcow2 import Qcow2
from dibble.outputs.qcow2_ahead import Ahead
from dibble.outputs.qcow2_cluster import CLUSTER
from dibble.outputs.qcow2_file import write_qcow2
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.contract
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _qemu_img(debian_packages: None) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("no qemu-img on this host")


def sparse(path: Path, size: int, parts: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def mixed(path: Path) -> Path:
    """Text, noise, zeros that are written, holes; ends in the middle of a cluster, with data."""
    noise = random.Random(1)
    parts = {}
    for number in range(120):
        length = noise.randrange(1, 3 * CLUSTER // 2)
        kinds = (noise.randbytes(length), bytes(length), b"text %d\n" % number * (length // 7), b"\xff" * length)
        parts[number * 700_001] = kinds[noise.randrange(4)][:length]
    return sparse(path, 120 * 700_001 // 512 * 512 + 512, parts)


def is_sound_and_equal(raw: Path, made: Path) -> dict[str, Any]:
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", made], check=True)
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, made], check=True)
    text = subprocess.run(["qemu-img", "info", "--output=json", made], check=True, capture_output=True).stdout
    info: dict[str, Any] = json.loads(text)
    return info


DISKS: dict[str, Callable[[Path], Path]] = {
    "mixed": mixed,
    "empty": lambda path: sparse(path, 8 * MIB, {}),
    "of one sector": lambda path: sparse(path, 512, {0: b"x" * 512}),
    "of noise": lambda path: sparse(path, 16 * MIB, {0: random.Random(2).randbytes(16 * MIB)}),
    "of one letter": lambda path: sparse(path, 64 * MIB, {0: b"x" * (64 * MIB)}),
    "great and sparse": lambda path: sparse(path, 3 << 40, {0: b"a" * 5000, 1 << 40: b"b", (3 << 40) - 1: b"c"}),
}


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_comes_back_and_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path, kind: str) -> None:
    raw = DISKS[kind](tmp_path / "disk.raw")
    made = []
    for threads in (1, 2, 5):
        path = tmp_path / f"{threads}.qcow2"
        write_qcow2(raw, path, threads=threads)
        made.append(path.read_bytes())
    assert made[0] == made[1] == made[2]
    info = is_sound_and_equal(raw, tmp_path / "5.qcow2")
    assert info["virtual-size"] == raw.stat().st_size
    assert info["format-specific"]["data"]["compression-type"] == "zstd"


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("seed", range(12))
def test_the_bytes_do_not_depend_on_what_was_compressed_while_the_disk_was_filled(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    clusters = 40
    raw = sparse(tmp_path / "disk.raw", clusters * CLUSTER - chance.choice((0, 512)), {})
    with Ahead(raw, tmp_path, threads=0) as ahead:
        for number in range(300):
            at = chance.randrange(clusters)
            if chance.random() < 0.5:
                ahead.guess(at)
                continue
            length = chance.choice((1, 512, CLUSTER // 2, CLUSTER))
            data = chance.choice((bytes(length), b"%d" % number * length, chance.randbytes(length)))[:length]
            put(raw, at * CLUSTER, data[: raw.stat().st_size - at * CLUSTER])
        for number in range(clusters):
            if chance.random() < 0.3:
                ahead.guess(number)
        write_qcow2(raw, tmp_path / "ahead.qcow2", ahead=ahead)
    write_qcow2(raw, tmp_path / "after.qcow2")
    assert (tmp_path / "ahead.qcow2").read_bytes() == (tmp_path / "after.qcow2").read_bytes()
    is_sound_and_equal(raw, tmp_path / "ahead.qcow2")


def test_a_disk_that_is_followed_while_somebody_fills_it_gives_the_same_bytes(tmp_path: Path) -> None:
    chance = random.Random(3)
    raw = sparse(tmp_path / "disk.raw", 48 * MIB, {})
    with Ahead(raw, tmp_path, threads=3) as ahead:
        for number in range(400):
            put(raw, number * 48 * MIB // 400, b"text %d\n" % number * 12_000)
            put(raw, chance.randrange(number + 1) * 48 * MIB // 400, b"later %d" % number)
        write_qcow2(raw, tmp_path / "ahead.qcow2", ahead=ahead)
    write_qcow2(raw, tmp_path / "after.qcow2")
    assert (tmp_path / "ahead.qcow2").read_bytes() == (tmp_path / "after.qcow2").read_bytes()


def test_what_was_compressed_ahead_is_used_only_for_the_same_content(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", 2 * CLUSTER, {0: b"a" * CLUSTER, CLUSTER: b"b" * CLUSTER})
    with Ahead(raw, tmp_path, threads=0) as ahead:
        ahead.guess(0)
        ahead.guess(1)
        packed = ahead.take(0, b"a" * CLUSTER)
        assert packed is not None
        assert zstandard.decompress(packed) == b"a" * CLUSTER
        assert ahead.take(1, b"a" * CLUSTER) is None
        assert ahead.take(1, b"b" * (CLUSTER - 1) + b"c") is None
        assert ahead.take(0, bytes(CLUSTER)) is None


def test_clusters_are_compressed_once_they_are_complete(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", 4 * CLUSTER, {CLUSTER: b"a" * CLUSTER, 2 * CLUSTER: b"b" * 8192})
    with Ahead(raw, tmp_path, threads=1) as ahead:
        while ahead.take(1, b"a" * CLUSTER) is None:
            pass
        assert ahead.take(2, b"b" * 8192 + bytes(CLUSTER - 8192)) is None
        put(raw, 2 * CLUSTER, b"c" * CLUSTER)
        while ahead.take(2, b"c" * CLUSTER) is None:
            pass


def test_zeros_and_holes_take_no_room(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", 1 << 30, {MIB: b"x" * MIB, 8 * MIB: bytes(64 * MIB)})
    write_qcow2(raw, tmp_path / "N.qcow2")
    text = subprocess.run(
        ["qemu-img", "check", "--output=json", tmp_path / "N.qcow2"], check=True, capture_output=True
    ).stdout
    assert json.loads(text)["allocated-clusters"] == MIB // CLUSTER
    assert (tmp_path / "N.qcow2").stat().st_size <= 8 * CLUSTER


def test_our_file_is_not_greater_than_that_of_qemu_img(tmp_path: Path) -> None:
    programs = [path for path in sorted(Path("/usr/bin").iterdir()) if path.is_file() and os.access(path, os.R_OK)]
    files = [path.read_bytes() for path in programs if path.stat().st_size < 4 * MIB][:400]
    content = b"".join(data + bytes(-len(data) % 4096) for data in files)
    assert len(content) > 20 * MIB
    raw = sparse(tmp_path / "disk.raw", len(content), {0: content})
    write_qcow2(raw, tmp_path / "ours.qcow2")
    command = ["qemu-img", "convert", "-c", "-o", "compression_type=zstd", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*command, raw, tmp_path / "theirs.qcow2"], check=True)
    assert (tmp_path / "ours.qcow2").stat().st_size <= (tmp_path / "theirs.qcow2").stat().st_size


@pytest.mark.parametrize(
    ("changes", "expected", "compressed"),
    [
        ({}, {"compat": "1.1", "compression-type": "zstd"}, True),
        ({"qemu_img_options": "compression_type=zlib"}, {"compat": "1.1", "compression-type": "zlib"}, True),
        ({"qemu_img_options": "compat=0.10"}, {"compat": "0.10", "compression-type": "zlib"}, True),
        ({"qemu_img_options": "lazy_refcounts=on"}, {"lazy-refcounts": True, "compression-type": "zstd"}, True),
        ({"compress": False}, {"compat": "1.1"}, False),
        ({"compress": False, "qemu_img_options": "refcount_bits=8"}, {"refcount-bits": 8}, False),
    ],
)
def test_what_the_user_asks_of_qcow2_is_in_the_file_and_its_bytes_are_always_the_same(
    tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any], compressed: bool
) -> None:
    raw = mixed(tmp_path / "disk.raw")
    made = set()
    for _ in range(3):
        target = tmp_path / "N.qcow2"
        target.unlink(missing_ok=True)
        source = Source(tmp_path, disk({"image0": raw}))
        Qcow2().write(Writing(source, target, request(tmp_path, **changes), HostToolbox(), Events(), EPOCH))
        made.add(target.read_bytes())
    assert len(made) == 1
    info = is_sound_and_equal(raw, target)
    assert info["format-specific"]["data"].items() >= expected.items()
    check = subprocess.run(["qemu-img", "check", "--output=json", target], check=True, capture_output=True).stdout
    assert (json.loads(check).get("compressed-clusters", 0) > 0) == compressed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["N.qcow2", "disk.raw"]


def test_an_option_that_qemu_img_does_not_know_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", MIB, {})
    source = Source(tmp_path, disk({"image0": raw}))
    wanted = request(tmp_path, qemu_img_options="colour=red")
    with pytest.raises(ToolFailed, match="colour") as caught:
        Qcow2().write(Writing(source, tmp_path / "N.qcow2", wanted, HostToolbox(), Events(), EPOCH))
    assert "--qemu-img-options colour=red" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]
