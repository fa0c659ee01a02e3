"""Garbage collection: removing what has not been used for long, and the rubbish of the dead; never what is in use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.errors import StoreError
from dibble.store import locks
from dibble.store.entries import Entry, Freeing, entries_of
from dibble.store.layers import OF_STEP, step_key
from dibble.store.places import remove_tree, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dibble.store.places import Store

PARTIAL_S = 86400.0
"""Downloads that broke off are worth going on with for a day; afterwards the mirror mostly has another version."""
SMALL_S = 30 * 86400.0
"""Facts and answers of a package manager are small, and of no use once repositories have moved on."""
ORPHAN_S = 3600.0
"""A layer that no key leads to may just be being made."""
_ROUND_S = 60.0
"""One build uses its layers within such a time; among them the last one, which needs the others, goes first."""
_RANK = {"output": 0, "layer": 1, "packages": 2, "tools": 3, "package": 4, "download": 5, "lists": 6, "facts": 7}
_WHOLE = {"lists": "repositories"}  # kinds whose entries are held all together


@dataclass(slots=True)
class Collected:
    """What was removed, or would be. Sizes are bytes on disk; `before` and `after` of all entries together.

    `rubbish` names what was left by the dead: sessions, lock files, keys, downloads that broke off.
    """

    before: int = 0
    after: int = 0
    removed: list[Entry] = field(default_factory=list)
    in_use: list[Entry] = field(default_factory=list)
    rubbish: list[str] = field(default_factory=list)


def collect(
    store: Store,
    *,
    max_size: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
    now: float | None = None,
) -> Collected:
    """Remove entries that were not used for `older_than` seconds, then the least recently used ones until the store
    has at most `max_size` bytes; without these two only rubbish. Run it inside the namespace.

    Harmless while builds run: an entry is taken away only by who can have it alone, and whole. Raises StoreError.
    """
    moment = time.time() if now is None else now
    entries = entries_of(store, now=moment)
    freeing = Freeing(entries)
    done = Collected(before=freeing.left)
    with _doomed(store, dry_run=dry_run) as doomed:
        done.rubbish += _rubbish(store, moment, dry_run=dry_run)
        wanted = _Wanted(entries)
        named = _named_layers(store)
        for entry in wanted.in_order():
            if entry.kind == "facts":
                continue  # small, and what explanations and estimates live on
            idle = moment - wanted.used(entry)
            is_orphan = entry.kind == "layer" and entry.name not in named and moment - entry.made > ORPHAN_S
            is_old = older_than is not None and idle > older_than
            if not (is_orphan or is_old or (max_size is not None and freeing.left > max_size)):
                continue
            if wanted.is_needed(entry) or not _take(store, entry, doomed):
                done.in_use.append(entry)
                continue
            wanted.remove(entry)
            freeing.remove(entry)
            done.removed.append(entry)
        if not dry_run:
            done.rubbish += clean_keys(store)
    done.after = freeing.left
    return done


class _Wanted:
    """Which entries still need which: a set of packages its layers, a package those that have links to its files."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._by_name = {entry.name: entry for entry in entries}
        self._needed_by: dict[str, set[str]] = {entry.name: set() for entry in entries}
        package_of = {
            inode: entry.name for entry in entries if entry.kind == "package" for inode in entry.inodes
        }  # several packages never share a file
        for entry in entries:
            for name in entry.needs:
                self._needed_by.get(name, set()).add(entry.name)
            if entry.kind in ("packages", "tools"):
                for name in {package_of[inode] for inode in entry.inodes if inode in package_of}:
                    self._needed_by[name].add(entry.name)

        self._used = _used_by_trees(entries)

    def used(self, entry: Entry) -> float:
        """When it was last used, itself or by what needs it."""
        own = self._used.get(entry.name, entry.used)
        return max([own, *(self.used(self._by_name[name]) for name in self._needed_by[entry.name])])

    def is_needed(self, entry: Entry) -> bool:
        return bool(self._needed_by[entry.name])

    def remove(self, entry: Entry) -> None:
        for users in self._needed_by.values():
            users.discard(entry.name)

    def in_order(self) -> list[Entry]:
        """The least recently used first; of what was used together, what others need comes last."""
        return sorted(
            self._entries,
            key=lambda entry: (self.used(entry) // _ROUND_S, _RANK[entry.kind], -entry.made, entry.name),
        )


def _used_by_trees(entries: list[Entry]) -> dict[str, float]:
    """When layers were last used, themselves or by a layer that was made on the tree they lead to: a build that goes on
    for long uses its first layers long before its last ones, which are nothing without them."""
    found: dict[str, float] = {}
    of_tree: dict[str, float] = {}
    for entry in sorted(entries, key=lambda entry: -entry.made):
        if entry.trees is not None:
            before, after = entry.trees
            found[entry.name] = max(entry.used, of_tree.get(after, 0.0))
            of_tree[before] = max(found[entry.name], of_tree.get(before, 0.0))
    return found


@contextlib.contextmanager
def _doomed(store: Store, *, dry_run: bool) -> Iterator[Path | None]:
    """A directory for what is taken away; it goes at the end with all that is in it."""
    if dry_run:
        yield None
        return
    store.sweep()
    with store.session() as session:
        yield session.path


def _take(store: Store, entry: Entry, doomed: Path | None) -> bool:
    """Take an entry out of its place; False when somebody uses it."""
    path = store.root / entry.name
    with store.uses.alone(_WHOLE.get(entry.kind, entry.name)) as free:
        if not free or doomed is None:
            return free
        if entry.kind == "layer":
            forget(store, path)
        with contextlib.suppress(FileNotFoundError):
            path.rename(doomed / entry.name.replace("/", "-"))
    return True


def forget(store: Store, layer: Path) -> None:
    """Take a layer out of the list of its key, so that no build looks for it."""
    try:
        record = json.loads((layer / "record.json").read_text("utf-8"))
        keys = [str(record["key"]), step_key(str(record["step"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return
    with store.locked("keys"):
        for key in keys:
            if key and "/" not in key:
                _without(store.keys / key, lambda name: name == layer.name)


def clean_keys(store: Store) -> list[str]:
    """Take layers that are gone out of the lists of keys; returns the keys whose lists were removed."""
    removed = []
    with store.locked("keys"):
        for path in sorted(store.keys.iterdir()):
            if path.name.startswith("."):
                continue
            if not _without(path, lambda name: not (store.layers / name).is_dir()):
                removed.append(f"keys/{path.name}")
    return removed


def _without(path: Path, is_gone: Callable[[str], bool]) -> bool:
    """Drop names from a key's list; False when nothing is left of it."""
    try:
        names = json.loads(path.read_text("utf-8"))
        left = [name for name in names if not is_gone(str(name))]
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        names, left = [], []  # a damaged list leads nowhere
    if not left:
        path.unlink(missing_ok=True)
    elif left != names:
        write_whole(path, json.dumps(left).encode())
    return bool(left)


def _named_layers(store: Store) -> set[str]:
    """The names of layers that some key leads to."""
    found: set[str] = set()
    for path in store.keys.iterdir():
        if path.name.startswith(OF_STEP):
            continue
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.update(f"layers/{name}" for name in json.loads(path.read_text("utf-8")))
    return found


def _rubbish(store: Store, now: float, *, dry_run: bool) -> list[str]:
    """Lock files that nobody holds, what broke off long ago, and small things that nobody asked for in a month."""
    found = []
    for path in sorted(store.locks.glob("*.lock")):
        if locks.is_free(path, remove=not dry_run):
            found.append(f"locks/{path.name}")
    for pattern, place in ((".*.part", store.blobs), (".*.new", store.packages)):
        for path in sorted(place.glob(f"*/{pattern}")):
            try:
                if now - path.stat().st_mtime >= PARTIAL_S and _remove_partial(path, dry_run=dry_run):
                    found.append(str(path.relative_to(store.root)))
            except FileNotFoundError:
                continue
    for small in (store.facts.glob("*/*"), store.answers.glob("*")):
        for path in sorted(small):
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= SMALL_S:
                    found.append(str(path.relative_to(store.root)))
                    if not dry_run:
                        path.unlink()
    return found


def _remove_partial(path: Path, *, dry_run: bool) -> bool:
    """Remove what was half received or unpacked, unless its maker is still at it (`packages/` locks the same way)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", hint="is it somebody else's file?") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            remove_tree(path) if path.is_dir() else path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
