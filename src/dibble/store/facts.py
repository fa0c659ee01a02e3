"""Small things that builds found out and later plans want to know, as JSON by kind and key.

    facts/KIND/KEY.json     one fact           builds/NAME.json   what one build did, the last BUILDS_KEPT of them

Nothing here decides what an image becomes: whatever is lost or wrong is found out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from dibble.store.places import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dibble.store.places import Store

BUILDS_KEPT = 50


class Facts:
    """Facts of one store. Reading what is not there, or cannot be read, gives None; not being able to write is no
    fault, because a fact only saves time."""

    def __init__(self, store: Store) -> None:
        self._root = store.facts

    def get(self, kind: str, *key: str) -> Any:  # whatever JSON was put there
        try:
            file = self._file(kind, key)
            value = json.loads(file.read_text("utf-8"))
            with contextlib.suppress(OSError):
                os.utime(file)  # gc goes by it
            return value
        except (OSError, ValueError):
            return None

    def put(self, value: object, kind: str, *key: str) -> None:
        file = self._file(kind, key)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(value).encode())

    def _file(self, kind: str, key: tuple[str, ...]) -> Path:
        name = hashlib.sha256("\0".join(key).encode("utf-8", "surrogateescape")).hexdigest()[:40]
        return self._root / kind / f"{name}.json"


class BuildLog:
    """What the last builds did, for estimates and for explaining them afterwards."""

    def __init__(self, store: Store) -> None:
        self._root = store.builds

    def add(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry (plain JSON data) and forget the oldest."""
        with contextlib.suppress(OSError):
            name = f"{time.time_ns():020d}-{os.getpid()}.json"
            write_whole(self._root / name, json.dumps(entry).encode())
            for path in self._files()[BUILDS_KEPT:]:
                path.unlink(missing_ok=True)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The entries, the newest first."""
        for path in self._files():
            with contextlib.suppress(OSError, ValueError):
                entry = json.loads(path.read_text("utf-8"))
                if isinstance(entry, dict):
                    yield entry

    def _files(self) -> list[Path]:
        try:
            return sorted(self._root.glob("*.json"), key=lambda path: path.name, reverse=True)
        except OSError:
            return []
