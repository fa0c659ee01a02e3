"""A writer of Debian packages, for tests."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable

ME = (os.getuid(), os.getgid())
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@dataclass(frozen=True)
class File:
    """One entry of a package; `kind` is tar's letter."""

    name: str
    content: bytes = b""
    kind: Literal["0", "1", "2", "5", "6"] = "0"
    mode: int = 0o644
    mtime: float = 1_700_000_000
    link: str = ""
    owner: tuple[int, int] = ME
    attributes: dict[str, str] = field(default_factory=dict)


def tar_of(files: list[File], tar_format: str = "gnu") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[tar_format]) as archive:
        for file in files:
            info = tarfile.TarInfo(file.name)
            info.type = file.kind.encode()
            info.mode, info.mtime, info.linkname = file.mode, file.mtime, file.link
            info.uid, info.gid = file.owner
            info.size = len(file.content)
            info.pax_headers = dict(file.attributes)
            archive.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def ar_of(members: list[tuple[str, bytes]]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members:
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


CONTROL = [File("./", kind="5", mode=0o755), File("./control", b"Package: x\nVersion: 1\nArchitecture: all\n")]
ROOT = File("./", kind="5", mode=0o755)


def deb_of(files: list[File], suffix: str = ".xz", tar_format: str = "gnu") -> bytes:
    compress = COMPRESSORS[suffix]
    return ar_of(
        [
            ("debian-binary", b"2.0\n"),
            (f"control.tar{suffix}", compress(tar_of(CONTROL))),
            (f"data.tar{suffix}", compress(tar_of(files, tar_format))),
        ]
    )
