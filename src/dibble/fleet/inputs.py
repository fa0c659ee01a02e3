"""What a cell needs of the caller's machine, packed so that it can go to another, and put in place there.

An input is a directory of elements, a host's tree, a checkout or a file. It travels under the digest of what is sent:
a worker that has it is not sent it again, and what arrives is compared with its name.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING

import zstandard

from dibble.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PACKED = ".packed"
_DIGEST = 64  # characters
_LEFT_OUT = frozenset({".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


@dataclass(frozen=True, slots=True)
class Input:
    """`file` is what is sent: the file itself, or the archive of a directory."""

    digest: str
    file: Path
    packed: bool

    @property
    def name(self) -> str:
        """A file keeps its own behind the digest, of which the end says how it is compressed."""
        own = _PACKED if self.packed else "-" + re.sub(r"[^\w.+-]", "_", self.file.name)
        return f"{self.digest}{own}"


class Inputs:
    """Packs inputs, each once in a run; `place` is a directory for the archives. May be used from several threads."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._found: dict[Path, Input] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> Input:
        """Raises ReadError where it cannot be read."""
        with self._lock:
            if path not in self._found:
                try:
                    self._found[path] = self._pack(path) if path.is_dir() else _as_it_is(path)
                except OSError as error:
                    raise ReadError(
                        f"{path} cannot be sent to a worker: {error.strerror}", hint="check the path"
                    ) from error
            return self._found[path]

    def _pack(self, path: Path) -> Input:
        """An archive that says nothing of when and by whom: the same content has the same digest everywhere."""
        self._place.mkdir(parents=True, exist_ok=True)
        aside = self._place / uuid.uuid4().hex
        with (
            aside.open("wb") as file,
            zstandard.ZstdCompressor(level=3).stream_writer(file) as writer,
            tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            for entry in _below(path):
                archive.add(entry, str(entry.relative_to(path)), recursive=False, filter=_plain)
        digest = digest_of(aside)
        final = self._place / f"{digest}{_PACKED}"
        aside.rename(final)
        return Input(digest, final, packed=True)


def _as_it_is(path: Path) -> Input:
    return Input(digest_of(path), path, packed=False)


def _below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name not in _LEFT_OUT:
            yield entry
            if entry.is_dir() and not entry.is_symlink():
                yield from _below(entry)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- on the worker


def kept(place: Path, name: str) -> Path:
    """Where an input stands below a worker's directory."""
    return place / "inputs" / name.removesuffix(_PACKED)


def missing(place: Path, names: Sequence[str]) -> list[str]:
    """Those of the inputs that are not there."""
    return [name for name in names if not kept(place, name).exists()]


def receive(place: Path, name: str, arrived: Path) -> None:
    """Put an input that has arrived in its place. Raises ReadError where it is not what it is called."""
    digest = name[:_DIGEST]
    if digest_of(arrived) != digest:
        arrived.unlink()
        raise ReadError(f"the input {digest[:12]} arrived damaged", hint="is the network sound? run it again")
    goal = kept(place, name)
    if name.endswith(_PACKED):
        aside = arrived.with_suffix(".tree")
        aside.mkdir()
        with (
            arrived.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as reader,
            tarfile.open(fileobj=reader, mode="r|") as archive,
        ):
            # It comes from our own client; scripts keep their modes, and a link may lead where it did there.
            archive.extraction_filter = lambda member, _: member
            for member in archive:
                archive.extract(member, aside)
        arrived.unlink()
        arrived = aside
    try:
        arrived.rename(goal)
    except OSError:
        if not goal.exists():  # else somebody was quicker
            raise
