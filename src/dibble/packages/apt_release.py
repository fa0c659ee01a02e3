"""Has a repository changed? Its signed top-level file says so, asked for conditionally and without apt.

    STATE/releases/NAME.json   what was last known of (uri, suite): sha256, validators, when it was asked

Nothing here is verified: it only tells whether what was verified before is still the newest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class _Known:
    """`checked` is in seconds since the epoch."""

    sha256: str
    checked: float
    etag: str = ""
    modified: str = ""


def repository_state(uri: str, suite: str, state_dir: Path, *, offline: bool, max_age_s: int) -> str | None:
    """The sha256 of the repository's InRelease (or Release); None when nobody can tell.

    What was learnt less than `max_age_s` seconds ago is not asked again; offline, what was learnt last counts.
    """
    known = _recall(state_dir, uri, suite)
    if known and (offline or abs(time.time() - known.checked) < max_age_s):
        return known.sha256
    if offline:
        return None
    for name in ("InRelease", "Release"):
        answer = _ask(release_url(uri, suite, name), known)
        if answer is not None:
            _remember(state_dir, uri, suite, answer)
            return answer.sha256
    return None


def repository_states(
    places: Iterable[tuple[str, str]], state_dir: Path, *, offline: bool, max_age_s: int
) -> dict[tuple[str, str], str | None]:
    """`repository_state` of several (uri, suite), asked at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = list(dict.fromkeys(places))
    if not wanted:
        return {}

    def ask(place: tuple[str, str]) -> str | None:
        return repository_state(*place, state_dir, offline=offline, max_age_s=max_age_s)

    with ThreadPoolExecutor(min(8, len(wanted))) as pool:
        return dict(zip(wanted, pool.map(ask, wanted), strict=True))


def note_release(uri: str, suite: str, file: Path, state_dir: Path) -> None:
    """Take in what apt has just fetched; apt gives the file the server's time."""
    modified = formatdate(file.stat().st_mtime, usegmt=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    _remember(state_dir, uri, suite, _Known(digest, time.time(), modified=modified))


def release_url(uri: str, suite: str, name: str) -> str:
    """The address of a suite's top-level file; a suite that ends in "/" is a path below the URI (sources.list(5))."""
    base = uri.rstrip("/")
    return f"{base}/{suite.lstrip('./')}{name}" if suite.endswith("/") else f"{base}/dists/{suite}/{name}"


def _ask(url: str, known: _Known | None) -> _Known | None:
    import requests

    from dibble.packages.http import CONNECT_SECONDS, READ_SECONDS

    headers = {"Accept-Encoding": "identity"}
    if known and known.etag:
        headers["If-None-Match"] = known.etag
    elif known and known.modified:
        headers["If-Modified-Since"] = known.modified
    if not url.startswith(("http://", "https://")):
        path = Path(url.partition(":")[2])
        return _Known(hashlib.sha256(path.read_bytes()).hexdigest(), time.time()) if path.is_file() else None
    try:
        response = requests.get(url, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.RequestException:
        return None  # the update that follows says what is wrong, if one is needed
    if response.status_code == 304 and known:
        return _Known(known.sha256, time.time(), known.etag, known.modified)
    if response.status_code != 200:
        return None
    digest = hashlib.sha256(response.content).hexdigest()
    got = response.headers
    return _Known(digest, time.time(), got.get("ETag", ""), got.get("Last-Modified", ""))


def _file(state_dir: Path, uri: str, suite: str) -> Path:
    return state_dir / "releases" / (hashlib.sha256(f"{uri.rstrip('/')} {suite}".encode()).hexdigest()[:32] + ".json")


def _recall(state_dir: Path, uri: str, suite: str) -> _Known | None:
    try:
        return _Known(**json.loads(_file(state_dir, uri, suite).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remember(state_dir: Path, uri: str, suite: str, known: _Known) -> None:
    path = _file(state_dir, uri, suite)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(known), file)
    Path(name).replace(path)
