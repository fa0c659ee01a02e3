"""Decompressing xz: with the newest liblzma that is there as with Python's."""

from __future__ import annotations

import lzma
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.packages.unpack import xz

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit


def _library() -> Path | None:
    """A liblzma.so.5 of this machine, as the dynamic loader has it."""
    with Path("/proc/self/maps").open() as maps:
        return next((Path(line.split()[-1]) for line in maps if "liblzma.so.5" in line), None)


@pytest.fixture(params=["of Python", "of the tools"])
def library(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "of the tools":
        path = _library()
        if path is None:
            pytest.skip("Python has its liblzma inside")
        assert xz.use(path)
        assert isinstance(xz.decompressor(), xz.XzDecompressor)
    yield
    xz.use(None)


def test_any_data_come_out_again(library: None) -> None:
    @given(
        st.lists(st.binary(max_size=3000), min_size=1, max_size=3),
        st.integers(1, 700),
        st.integers(1, 900),
        st.sampled_from([lzma.FORMAT_XZ, lzma.FORMAT_ALONE]),
    )
    def check(contents: list[bytes], portion: int, limit: int, form: int) -> None:
        data = lzma.compress(contents[0], form)
        decompressor = xz.decompressor()
        found = b""
        at = 0
        while not decompressor.eof:
            piece = data[at : at + portion] if decompressor.needs_input else b""
            at += len(piece)
            made = decompressor.decompress(piece, limit)
            assert len(made) <= limit
            found += made
        assert found == contents[0]
        several = b"".join(lzma.compress(one) + bytes(8) for one in contents)
        assert xz.decompress(several) == b"".join(contents)

    check()


def test_much_comes_out_whole(library: None) -> None:
    content = random.Random(1).randbytes(3 << 20) + bytes(5 << 20)
    assert xz.decompress(lzma.compress(content, preset=0)) == content
    decompressor = xz.decompressor()
    assert decompressor.decompress(lzma.compress(content, preset=0) + b"rest") == content
    assert (decompressor.eof, decompressor.unused_data) == (True, b"rest")


def test_what_is_damaged_or_ends_early_is_refused(library: None) -> None:
    data = lzma.compress(os.urandom(5000))
    for bad in (b"", b"no xz at all, but long enough to tell", data[:-1], data[:40], data[:2000] + b"x" + data[2001:]):
        with pytest.raises((*xz.FAULTS, EOFError)):
            xz.decompress(bad)


def test_a_library_that_cannot_be_loaded_leaves_python_its_own(tmp_path: Path) -> None:
    (tmp_path / "liblzma.so.5").write_bytes(b"none")
    assert not xz.use(tmp_path / "liblzma.so.5")
    assert not xz.use(tmp_path / "missing")
    assert xz.decompress(lzma.compress(b"x")) == b"x"
