"""Programs of the wrong machine in an initramfs."""

from __future__ import annotations

import bz2
import gzip
import lzma
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dibble.packages.initramfs_content import UNKNOWN, foreign_program
from dibble.sandbox.binfmt import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
}


def cpio(files: dict[str, bytes]) -> bytes:
    """A newc archive (cpio(5))."""
    data = b""
    for name, content in (*files.items(), ("TRAILER!!!", b"")):
        numbers = [0, 0o100755, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        data += b"070701" + b"".join(f"{number:08x}".encode() for number in numbers) + name.encode() + b"\0"
        data += bytes(-len(data) % 4) + content
        data += bytes(-len(data) % 4)
    return data


@pytest.mark.parametrize("how", COMPRESS)
def test_the_first_program_of_another_machine_is_named(tmp_path: Path, how: str) -> None:
    image = tmp_path / "initrd"
    own = {"init": b"#!/bin/sh\n", "bin/a": program("arm64") + bytes(5000)}
    image.write_bytes(cpio({"early": b"microcode"}) + bytes(512) + COMPRESS[how](cpio(own)))
    assert foreign_program(image, "arm64") == ""
    image.write_bytes(cpio({"early": b"x"}) + COMPRESS[how](cpio({**own, "bin/kmod": program("amd64")})))
    assert foreign_program(image, "arm64") == "bin/kmod"


@given(data=st.binary(min_size=1, max_size=300))
def test_what_cannot_be_read_counts_as_unknown(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    image = tmp_path_factory.mktemp("initrd") / "initrd"
    image.write_bytes(data)
    assert foreign_program(image, "arm64") == (UNKNOWN if data.strip(b"\0") else "")


def test_an_archive_that_is_cut_off_counts_as_unknown(tmp_path: Path) -> None:
    image = tmp_path / "initrd"
    image.write_bytes(cpio({"bin/a": program("arm64")})[:-60])
    assert foreign_program(image, "arm64") == UNKNOWN
