"""Kernel modules made plain; that depmod learns the same from them is in tests/build/test_apt_engine.py."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dibble.packages.kernel_modules import Plain, PlainModules, kernels, make_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.unit

SECTION = struct.Struct("<IIQQQQIIQQ")


def module(sections: Mapping[bytes, bytes]) -> bytes:
    """An ELF64 object file with these sections and their names."""
    names = b"\0" + b"".join(name + b"\0" for name in (*sections, b".shstrtab"))
    contents = [*sections.values(), names]
    body = b"".join(contents)
    headers = [SECTION.pack(*[0] * 10)]
    at, name_at = 64, 1
    for name, content in zip((*sections, b".shstrtab"), contents, strict=True):
        headers.append(SECTION.pack(name_at, 1, 0, 0, at, len(content), 0, 0, 1, 0))
        at += len(content)
        name_at += len(name) + 1
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    numbers = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, at, 0, 64, 0, 0, 64, len(headers), len(headers) - 1)
    return identity + numbers + body + b"".join(headers)


def sections_of(data: bytes) -> dict[bytes, bytes]:
    """The sections that have content, by name."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    count, names_at = struct.unpack_from("<HH", data, 0x3C)
    headers = [SECTION.unpack_from(data, table + 64 * number) for number in range(count)]
    names = data[headers[names_at][4] :]
    return {
        names[header[0] :].partition(b"\0")[0]: data[header[4] : header[4] + header[5]]
        for header in headers
        if header[1] not in (0, 8)
    }


PLAIN = module({b".text": b"code" * 999, b".modinfo": b"alias=a\0", b".rela.text": b"r" * 99, b"__versions": b"crc"})
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_code_is_left_out_and_all_else_is_there(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.ko.{suffix}").write_bytes(COMPRESS[suffix](PLAIN))
    make_plain(tmp_path, tmp_path / "out", [f"a.ko.{suffix}"])
    found = (tmp_path / "out" / f"a.ko.{suffix}").read_bytes()
    assert len(found) < len(PLAIN) / 2
    assert {name: text for name, text in sections_of(found).items() if name != b".shstrtab"} == {
        b".modinfo": b"alias=a\0",
        b"__versions": b"crc",
    }


@given(st.binary(max_size=300) | st.integers(0, len(PLAIN)).map(lambda end: PLAIN[:end]))
def test_what_is_no_such_object_file_is_only_decompressed(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    place = tmp_path_factory.mktemp("modules")
    (place / "a.ko.gz").write_bytes(gzip.compress(data))
    make_plain(place, place / "out", ["a.ko.gz"])
    if data != PLAIN:
        assert (place / "out" / "a.ko.gz").read_bytes() == data


def test_kernels_are_found_with_their_compressed_modules(tmp_path: Path) -> None:
    kernel = tmp_path / "usr/lib/modules/6.1"
    (kernel / "kernel/fs").mkdir(parents=True)
    (kernel / "kernel/fs/a.ko.xz").touch()
    (kernel / "b.ko.zst").touch()
    (kernel / "modules.order").touch()
    (tmp_path / "usr/lib/modules/none").mkdir()
    assert [(place, sorted(names)) for place, names in kernels(tmp_path)] == [
        (kernel, ["b.ko.zst", "kernel/fs/a.ko.xz"])
    ]


def test_a_kernel_with_a_damaged_module_counts_as_unknown(tmp_path: Path) -> None:
    for version, data in (("good", lzma.compress(PLAIN)), ("bad", b"damaged")):
        folder = tmp_path / "usr/lib/modules" / version
        folder.mkdir(parents=True)
        (folder / "a.ko.xz").write_bytes(data)
    with ThreadPoolExecutor() as pool:
        modules = PlainModules(tmp_path / "scratch", pool.submit)
        assert not modules.known
        modules.begin([tmp_path, tmp_path])
        assert modules.known
        good = modules.find("good")
        assert good is not None
        assert (good.directory / "a.ko.xz").exists()
        assert modules.find("bad") is None
        assert modules.find("other") is None


def kernel(tmp_path: Path) -> tuple[Plain, Path]:
    """A kernel with one module as packaged, and the module's copy in a root."""
    source, copy = tmp_path / "packaged/6.1/a.ko.xz", tmp_path / "root/6.1/a.ko.xz"
    for path in (source, copy):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"module")
    return Plain(source.parent, tmp_path / "plain", frozenset({"a.ko.xz"}), ()), copy


def test_a_module_is_the_packaged_one_while_its_content_is(tmp_path: Path) -> None:
    plain, copy = kernel(tmp_path)
    assert plain.is_packaged("a.ko.xz", copy)
    times = copy.stat()
    copy.write_bytes(b"MODULE")
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not plain.is_packaged("a.ko.xz", copy)


def test_a_module_that_was_just_placed_is_not_read_again(tmp_path: Path) -> None:
    plain, copy = kernel(tmp_path)
    modules = PlainModules(tmp_path / "scratch", lambda *_: Future())
    modules._kernels["6.1"] = plain
    modules.placed(tmp_path / "other", lambda version: tmp_path / "root" / version)
    assert not plain.known
    modules.placed(tmp_path / "packaged", lambda version: tmp_path / "root" / version)
    (plain.source / "a.ko.xz").unlink()  # nothing to compare with
    assert plain.is_packaged("a.ko.xz", copy)


def test_a_link_or_an_unknown_name_is_no_packaged_module(tmp_path: Path) -> None:
    plain, copy = kernel(tmp_path)
    link = copy.with_name("link.ko.xz")
    link.symlink_to(copy)
    assert not plain.is_packaged("a.ko.xz", link)
    assert not plain.is_packaged("b.ko.xz", copy)
