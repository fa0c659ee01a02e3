"""The metadata of repositories: fetched and checked by zypper, shared between builds, a copy for each of them.

STATE/zypper/NAME/           zypper's cache of one set of repositories, checked with one set of keys
STATE/zypper/NAME/checked    its time is when the repositories were asked last
STATE/zypper/keys/NAME.asc   what a repository published of the keys that an element names
"""

from __future__ import annotations

import hashlib
import shutil
import time
from typing import TYPE_CHECKING

from dibble.errors import FetchError
from dibble.packages.zypper_keys import published_keys
from dibble.store.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from dibble.packages.zypper_answers import Repository

_ONLINE = "build once without --offline"


class Metadata:
    """Of all repositories that builds ask for; `place` is the directory in the store."""

    def __init__(self, place: Path, *, offline: bool, max_age_s: int) -> None:
        self._place = place
        self._offline = offline
        self._max_age_s = max_age_s

    def copy(
        self, repositories: Collection[Repository], keys: Collection[str], goal: Path, refresh: Callable[[Path], None]
    ) -> Path:
        """Make `goal` zypper's cache for these repositories, less than the highest age old, and return it.

        `refresh` brings a cache up to date, trusting the keys, given by their fingerprints, and no others.
        """
        rows = [f"{one.alias} {' '.join(one.urls)} {one.checked}" for one in repositories]
        name = _name([*rows, *sorted(keys)])
        shared, goal = self._place / name, goal / name
        shared.mkdir(parents=True, exist_ok=True)
        with locked(self._place / f"{name}.lock"):
            asked = self._refreshed(shared, refresh)
            if asked or not goal.exists():
                shutil.rmtree(goal, ignore_errors=True)
                shutil.copytree(shared, goal, symlinks=True)  # links hold what libzypp knows of a check
        return goal

    def _refreshed(self, shared: Path, refresh: Callable[[Path], None]) -> bool:
        checked = shared / "checked"
        if self._offline:
            if not checked.exists():
                raise FetchError("the repositories' metadata are not in the cache", hint=_ONLINE)
            return False
        if checked.exists() and abs(time.time() - checked.stat().st_mtime) < self._max_age_s:
            return False
        refresh(shared)
        checked.touch()
        return True

    def published(self, url: str, fingerprints: Collection[str], hint: str) -> str:
        """What `published_keys` finds; offline, what it found last."""
        kept = self._place / "keys" / f"{_name([url, *sorted(fingerprints)])}.asc"
        if self._offline:
            if not kept.is_file():
                raise FetchError(f"the keys of {url} are not in the cache", hint=_ONLINE)
            return kept.read_text()
        text = published_keys(url, fingerprints, hint)
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_suffix(f".{hashlib.sha256(text.encode()).hexdigest()[:8]}")
        new.write_text(text)
        new.replace(kept)
        return text


def _name(parts: Collection[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def raw(cache: Path, alias: str) -> Path:
    """The metadata of one repository as they were downloaded."""
    return cache / "raw" / alias.replace("/", "_")


def packages(cache: Path, alias: str) -> Path:
    """Where zypper looks for the packages of one repository before it downloads them."""
    return cache / "packages" / alias.replace("/", "_")
