"""Downloads of which an archive gives other digests than sha256: kept as blobs all the same.

PLACE/KEY.json    the sha256 of what was received, by a digest of its name and of what the archive says of it
PLACE/.KEY.part   what was received so far of a download that goes on at its last byte
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.errors import FetchError, FileGone
from dibble.packages.fetch import THREADS, blob_path
from dibble.packages.origin import download
from dibble.store.locks import locked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events

_KINDS = {"MD5": "md5", "SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512", "BLAKE2B": "blake2b"}
"""What Portage calls kinds of digests (GLEP 59, 75), and Python does."""


@dataclass(frozen=True, slots=True)
class Distfile:
    """One file to fetch. `urls` are tried in order; `size` is in bytes; `digests` are by Portage's names of them."""

    name: str
    urls: tuple[str, ...]
    size: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        parts = [self.name, str(self.size), *(f"{kind} {value}" for kind, value in sorted(self.digests.items()))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Distfiles:
    """Of all builds that share a store; `place` is a directory in it."""

    def __init__(self, place: Path, blobs: Path, events: Events, *, offline: bool) -> None:
        self._place = place
        self._blobs = blobs
        self._events = events
        self._offline = offline

    def fetch(self, wanted: Sequence[Distfile]) -> dict[str, Path]:
        """Make each a blob and return its path by its name. Raises FileGone, FetchError."""
        found = {one.name: path for one in wanted if (path := self._known(one)) is not None}
        missing = [one for one in wanted if one.name not in found]
        if not missing:
            return found
        if self._offline:
            names = ", ".join(one.name for one in missing[:5])
            raise FetchError(
                f"{names}: not in the cache, and --offline forbids to fetch", hint="run once without --offline"
            )
        self._place.mkdir(parents=True, exist_ok=True)
        with self._events.activity("download"), ThreadPoolExecutor(min(THREADS, len(missing))) as pool:
            found |= dict(zip((one.name for one in missing), pool.map(self._received, missing), strict=True))
        return found

    def _known(self, one: Distfile) -> Path | None:
        try:
            path = blob_path(self._blobs, json.loads((self._place / f"{one.key}.json").read_text())["sha256"])
            return path if not one.size or path.stat().st_size == one.size else None
        except (OSError, ValueError, KeyError):
            return None

    def _received(self, one: Distfile) -> Path:
        with locked(self._place / f"{one.key}.lock"):
            known = self._known(one)
            return known if known is not None else self._from_servers(one)

    def _from_servers(self, one: Distfile) -> Path:
        part = self._place / f".{one.key}.part"
        problems: list[FetchError] = []
        for url in one.urls:
            for _ in range(2):  # what an earlier run left may be wrong: then once from the start
                began = part.stat().st_size if part.exists() else 0
                try:
                    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as file:
                        download(url, file)
                    _check(part, one, url)
                except FileGone as error:
                    problems.append(error)
                    break
                except _Wrong as error:
                    part.unlink()
                    problems.append(error)
                    if not began:
                        break
                except FetchError as error:
                    problems.append(error)
                    break
                else:
                    return self._kept(one, part)
        wrong = [error for error in problems if isinstance(error, _Wrong)]
        others = [error for error in problems if not isinstance(error, FileGone)]
        raise (wrong or others or problems or [FetchError(f"{one.name}: no address to fetch it from")])[0]

    def _kept(self, one: Distfile, part: Path) -> Path:
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        path = blob_path(self._blobs, sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        part.rename(path)
        new = self._place / f".{one.key}.new"
        new.write_text(json.dumps({"sha256": sha256, "name": one.name}))
        new.rename(self._place / f"{one.key}.json")
        return path


class _Wrong(FetchError):
    """A server sends another file than the archive speaks of."""


def _check(file: Path, one: Distfile, url: str) -> None:
    hint = "the mirror is mid-sync or tampered with: try again later, or name another mirror"
    size = file.stat().st_size
    if one.size and size != one.size:
        raise _Wrong(f"{one.name}: {url} has {size} bytes where {one.size} are expected", hint=hint)
    require_digests(file, one.digests, one.name, hint)


def require_digests(file: Path, digests: Mapping[str, str], name: str, hint: str = "") -> None:
    """Compare a file with digests by Portage's names; those of kinds that Python lacks are passed over.

    Raises FetchError for one that differs.
    """
    for kind, expected in digests.items():
        if kind not in _KINDS:
            continue
        with file.open("rb") as data:
            found = hashlib.file_digest(data, _KINDS[kind]).hexdigest()
        if found != expected.lower():
            raise _Wrong(f"{name} has the {kind} {found} where {expected} is expected", hint=hint)
