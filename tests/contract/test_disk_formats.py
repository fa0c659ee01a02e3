"""vmdk, vhd, vhdx and vdi as others see them: sound, the content of the raw disk, the same bytes each time."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from dissect.hypervisor import vdi, vhd, vhdx, vmdk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.output_values import EPOCH, disk, request

from dibble.errors import OutputError
from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.outputs.pieces import PIECE
from dibble.outputs.vhd_file import geometry
from dibble.outputs.virtual_disks import Vdi, Vhd, Vhdx, Vmdk
from dibble.outputs.vmdk_file import write_vmdk
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from dibble.outputs.base import Output

pytestmark = pytest.mark.contract
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

# name → (the format, qemu-img's name, options, the independent reader)
FORMATS: dict[str, tuple[type[Output], str, str, Callable[[BinaryIO], Any]]] = {
    "vmdk": (Vmdk, "vmdk", "", vmdk.VMDK),
    "vhd": (Vhd, "vpc", "", vhd.VHD),
    "growing vhd": (Vhd, "vpc", "subformat=dynamic", vhd.VHD),
    "vhdx": (Vhdx, "vhdx", "", vhdx.VHDX),
    "vdi": (Vdi, "vdi", "", vdi.VDI),
}
each_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(autouse=True)
def _qemu_img(debian_packages: None) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("no qemu-img on this host")


def sparse(path: Path, size: int, parts: Mapping[int, bytes]) -> Path:
    with path.open("wb") as file:
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data[: max(0, size - offset)])
        file.truncate(size)
    return path


def made(name: str, raw: Path, target: Path, **changes: Any) -> Path:
    output, _, options, _ = FORMATS[name]
    target.unlink(missing_ok=True)
    wanted = request(raw.parent, **{"qemu_img_options": options, **changes})
    output().write(Writing(Source(raw.parent, disk({"image0": raw})), target, wanted, HostToolbox(), Events(), EPOCH))
    return target


def with_qemu(name: str, raw: Path, file: Path) -> dict[str, Any]:
    """Have QEMU check the file and compare it with the raw disk."""
    form = FORMATS[name][1]
    if form in ("vmdk", "vhdx", "vdi"):
        subprocess.run(["qemu-img", "check", "-q", "-f", form, file], check=True)
    if form != "vhdx" or raw.stat().st_size <= GIB:  # QEMU reads every hole of a vhdx, for hours in a great one
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", form, raw, file], check=True)
    text = subprocess.run(["qemu-img", "info", "-f", form, "--output=json", file], check=True, capture_output=True)
    info: dict[str, Any] = json.loads(text.stdout)
    return info


def with_dissect(name: str, raw: Path, file: Path, places: Iterator[int]) -> None:
    """Have an independent reader find the same content at the places; it reads whole units of 8 KiB only."""
    size = raw.stat().st_size // 8192 * 8192
    with file.open("rb") as opened, raw.open("rb") as plain:
        reader = FORMATS[name][3](opened)
        stream = reader.open() if hasattr(reader, "open") else reader
        for place in places:
            plain.seek(place)
            stream.seek(place)
            wanted = plain.read(max(0, min(MIB, size - place)))
            assert stream.read(len(wanted)) == wanted, f"{name} differs at {place} of {size}"


DISKS: dict[str, tuple[int, dict[int, bytes]]] = {
    "empty": (8 * MIB, {}),
    "of one sector": (512, {0: b"x" * 512}),
    "of noise": (9 * MIB, {0: random.Random(2).randbytes(9 * MIB)}),
    "of zeros that are written": (40 * MIB, {MIB: bytes(20 * MIB), 30 * MIB: b"a"}),
    "of no whole blocks": (33 * MIB + 3 * 512, {0: b"a" * 70_000, 33 * MIB: b"z" * 3 * 512}),
    "over 4 GiB": (5 * GIB + 512, {0: b"a" * 5000, 3 * GIB: b"b", 5 * GIB: b"c" * 512}),
    "of 1 TiB": (TIB, {0: b"a" * 5000, TIB // 2 - 2: b"bcde", TIB - 1: b"f"}),
}


@each_format
@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_comes_back(tmp_path: Path, name: str, kind: str) -> None:
    size, parts = DISKS[kind]
    raw = sparse(tmp_path / "disk.raw", size, parts)
    file = made(name, raw, tmp_path / "made")
    info = with_qemu(name, raw, file)
    unit = MIB if "vhd" in name.split() else 512
    assert info["virtual-size"] == size + -size % unit
    with_dissect(name, raw, file, iter(sorted({0, size // MIB // 2 * MIB, (size - 1) // MIB * MIB, *parts})))
    again = made(name, raw, tmp_path / "again")
    if size <= GIB:
        assert file.read_bytes() == again.read_bytes()
    assert file.stat().st_blocks * 512 <= raw.stat().st_blocks * 512 + 16 * MIB


@st.composite
def patterns(draw: st.DrawFn) -> tuple[int, dict[int, bytes]]:
    """A disk of up to 70 MiB in whole sectors: text, noise and zeros, written here and there, at odd places too."""
    size = draw(st.integers(1, 70 * MIB // 512)) * 512
    content = st.tuples(st.sampled_from([b"\0", b"x", b"text\n", b"\xff"]), st.integers(1, 300_000))
    near = st.sampled_from([0, 64 << 10, MIB, 2 * MIB, 32 * MIB])
    place = st.one_of(
        st.integers(0, size - 1), st.tuples(near, st.integers(-600, 600)).map(lambda pair: max(0, sum(pair)))
    )
    parts = draw(st.dictionaries(place, content, max_size=8))
    return size, {place: unit * (length // len(unit) + 1) for place, (unit, length) in parts.items()}


@each_format
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=patterns())
def test_any_disk_comes_back(tmp_path: Path, name: str, pattern: tuple[int, dict[int, bytes]]) -> None:
    raw = sparse(tmp_path / "disk.raw", *pattern)
    file = made(name, raw, tmp_path / "made")
    with_qemu(name, raw, file)
    with_dissect(name, raw, file, iter(range(0, pattern[0], MIB)))


@each_format
def test_the_bytes_do_not_depend_on_holes(tmp_path: Path, name: str) -> None:
    raw = sparse(tmp_path / "disk.raw", 24 * MIB, {0: b"a" * MIB, 9 * MIB + 5: b"b"})
    full = tmp_path / "full.raw"
    full.write_bytes(raw.read_bytes())
    assert full.stat().st_blocks > raw.stat().st_blocks
    assert made(name, raw, tmp_path / "1").read_bytes() == made(name, full, tmp_path / "2").read_bytes()


def test_the_bytes_of_a_vmdk_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", 80 * MIB, {n * 700_001: b"text %d\n" % n * 20_000 for n in range(110)})
    files = []
    for threads in (1, 2, 5):
        write_vmdk(raw, tmp_path / "made", threads=threads)
        files.append((tmp_path / "made").read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_vmdk_is_stream_optimized(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", 100 * MIB, {MIB: b"x" * MIB})
    file = made("vmdk", raw, tmp_path / "made")
    details = with_qemu("vmdk", raw, file)["format-specific"]["data"]
    assert details["create-type"] == "streamOptimized"
    assert details["parent-cid"] == 0xFFFFFFFF
    assert file.stat().st_size < 128 << 10
    other = sparse(tmp_path / "other.raw", 100 * MIB, {MIB: b"y" * MIB})
    assert (
        with_qemu("vmdk", other, made("vmdk", other, tmp_path / "2"))["format-specific"]["data"]["cid"]
        != details["cid"]
    )


def test_a_fixed_vhd_is_the_disk_in_whole_mebibytes_and_a_footer(tmp_path: Path) -> None:
    raw = sparse(tmp_path / "disk.raw", 3 * MIB + 512, {0: b"x" * 5000, 3 * MIB: b"z" * 512})
    content = made("vhd", raw, tmp_path / "made").read_bytes()
    assert len(content) == 4 * MIB + 512
    assert content[: 4 * MIB] == raw.read_bytes().ljust(4 * MIB, b"\0")
    footer = content[4 * MIB :]
    assert footer[:8] == b"conectix"
    original, current = struct.unpack(">QQ", footer[40:56])
    assert original == current == 4 * MIB
    assert struct.unpack(">I", footer[60:64]) == (2,)
    assert struct.unpack(">I", footer[64:68])[0] == ~sum(footer[:64] + footer[68:]) & 0xFFFFFFFF
    assert struct.unpack(">I", footer[24:28])[0] == EPOCH - 946_684_800


@pytest.mark.parametrize(
    ("size", "expected"),
    [(MIB, (30, 4, 17)), (GIB, (2080, 16, 63)), (127 * GIB, (65278, 16, 255)), (2040 * GIB, (65535, 16, 255))],
)
def test_the_geometry_of_a_vhd_is_that_of_the_specification(size: int, expected: tuple[int, int, int]) -> None:
    assert geometry(size) == expected


@pytest.mark.parametrize(
    ("name", "size"),
    [("vhd", 2040 * GIB + 1), ("growing vhd", 3 * TIB), ("vhdx", 64 * TIB + 1), ("vdi", 513 * TIB)],
)
def test_a_disk_that_the_format_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, size: int
) -> None:
    raw = tmp_path / "disk.raw"
    try:
        sparse(raw, size, {})
    except OSError:  # ext4 ends at 16 TiB
        pytest.skip("the file system takes no file of this size")
    with pytest.raises(OutputError, match="too great") as caught:
        made(name, raw, tmp_path / "made")
    assert caught.value.hint
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vmdk", "subformat=monolithicSparse", ("create-type", "monolithicSparse")),
        ("vhdx", "block_size=8M", None),
        ("vdi", "static=on", None),
        ("vhd", "subformat=fixed,force_size=on", None),
    ],
)
def test_options_of_qemu_img_are_followed(
    tmp_path: Path, name: str, options: str, expected: tuple[str, str] | None
) -> None:
    raw = sparse(tmp_path / "disk.raw", 16 * MIB, {MIB: b"x" * PIECE})
    info = with_qemu(name, raw, made(name, raw, tmp_path / "made", qemu_img_options=options))
    if expected:
        assert info["format-specific"]["data"][expected[0]] == expected[1]
