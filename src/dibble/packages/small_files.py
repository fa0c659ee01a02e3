"""Small files of mirrors, kept between builds, which are asked for again when they are too old.

PLACE/NAME and PLACE/NAME.json: a file as it came, and when that was and by what a change is seen
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

from dibble.errors import FetchError
from dibble.packages.fetch import get_small
from dibble.packages.origin import token_of_url

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 4 << 20  # bytes


class SmallFiles:
    """What is kept in `place`, asked for again when it is older than `max_age_s` seconds; `limit` in bytes."""

    def __init__(self, place: Path, *, offline: bool, max_age_s: int, limit: int = _LIMIT) -> None:
        self._place = place
        self._offline = offline
        self._max_age_s = max_age_s
        self._limit = limit
        self.tokens: dict[str, str] = {}
        """By what a change is seen of the files that were asked for (`packages/origin.py`)."""

    def get(self, url: str) -> bytes:
        """What a URL holds. Raises FileGone, FetchError."""
        kept = self._place / hashlib.sha256(url.encode()).hexdigest()[:32]
        about = kept.with_suffix(".json")
        known = None
        if about.exists() and kept.exists():
            known = json.loads(about.read_text())
        if known and (self._offline or abs(time.time() - known["checked"]) < self._max_age_s):
            self.tokens[url] = known["token"]
            return kept.read_bytes()
        if self._offline:
            raise FetchError(
                f"{url} is not in the cache, and --offline forbids to fetch", hint="run once without --offline"
            )
        token = token_of_url(url) or ""  # first: a file that changes in between counts as changed at the next look
        body = get_small(url, limit=self._limit)
        self._place.mkdir(parents=True, exist_ok=True)
        for file, data in (
            (kept, body),
            (about, json.dumps({"url": url, "token": token, "checked": time.time()}).encode()),
        ):
            new = file.with_name(f".{file.name}.{hashlib.sha256(data).hexdigest()[:8]}")
            new.write_bytes(data)
            new.replace(file)
        self.tokens[url] = token
        return body

    def forget(self, url: str) -> None:
        """Ask for a file again the next time: what is kept of it is no good."""
        (self._place / hashlib.sha256(url.encode()).hexdigest()[:32]).with_suffix(".json").unlink(missing_ok=True)
