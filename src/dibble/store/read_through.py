"""The layers of the store, and behind them those of a remote cache.

A build looks in two ways. At first it only asks what there is (`Outlook`): when the remote cache has all steps and the
outputs, nothing but the outputs is fetched. Else it works with `ReadThrough`, which fetches each layer when its step
comes, after `prefetch` took what was seen, several at a time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dibble.store.layers import NO_HISTORY, LayerStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.store.descriptor import Descriptor
    from dibble.store.layers import History, Record
    from dibble.store.places import Store
    from dibble.store.remote import RemoteStore
    from dibble.store.transfer import Fetching
    from dibble.store.write_behind import WriteBehind

AT_ONCE = 4
"""Layers that are fetched at a time: enough to hide the pauses between small ones."""


class ReadThrough(LayerStore):
    """Fetches what the store lacks; hands what it has and gets to `behind`, to be copied to the remote cache."""

    def __init__(
        self,
        store: Store,
        remote: RemoteStore,
        fetching: Fetching,
        behind: WriteBehind | None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(store, warn)
        self._remote = remote
        self._fetching = fetching
        self._behind = behind

    def candidates(self, key: str) -> list[Record]:
        found = super().candidates(key)
        if found and self._behind:
            self._behind.layer(found[0])
        return found

    def elsewhere(self, key: str, fits: Callable[[Record], bool]) -> Record | None:
        for entry in self._remote.layers(key):
            if entry.record and fits(entry.record) and self._fetching.layer(entry, self):
                return entry.record
        return None

    def keep(
        self,
        record: Record,
        uppers: list[Path],
        exports: Path | None,
        session: Path,
        history: History = NO_HISTORY,
    ) -> None:
        super().keep(record, uppers, exports, session, history)
        if self._behind:
            self._behind.layer(record)


class Outlook(LayerStore):
    """Takes a remote layer for there without fetching it; `seen` lists them, in the order of their steps.

    Only layers that changed the hooks tree are fetched, because the keys of later steps depend on what is in them.
    """

    def __init__(
        self, store: Store, remote: RemoteStore, fetching: Fetching, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__(store, warn)
        self._remote = remote
        self._fetching = fetching
        self.seen: dict[str, Descriptor] = {}

    def elsewhere(self, key: str, fits: Callable[[Record], bool]) -> Record | None:
        for entry in self._remote.layers(key):
            if entry.record and fits(entry.record) and (not entry.record.hooks or self._fetching.layer(entry, self)):
                self.seen[entry.name] = entry
                return entry.record
        return None

    def fetch(self, layer: str) -> bool:
        """Fetch a layer that was seen; True for one that the store had."""
        return layer not in self.seen or self._fetching.layer(self.seen[layer], self)

    def prefetch(self) -> None:
        """Fetch all that was seen. What cannot be had is no longer there for the walk that follows."""
        with ThreadPoolExecutor(AT_ONCE, "fetch") as pool:
            for _ in pool.map(lambda entry: self._fetching.layer(entry, self), self.seen.values()):
                continue
