"""Checking the whole store against what was recorded when its entries were made, and taking out what is damaged.

What depends on a damaged entry goes with it: layers that were made on top of it may have taken over the damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.store import contents
from dibble.store.collection import clean_keys, forget
from dibble.store.layers import OF_STEP, PACKAGES, Damaged, LayerStore, put_aside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.store.layers import Record
    from dibble.store.places import Store

_FILES_TOLD = 5
"""So many damaged files of one entry are named; the rest is counted."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `entry` is a path in the store, `file` one in the entry; `what` continues a sentence
    about the file, or about the entry where there is none."""

    entry: str
    what: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.entry}{f', {self.file}' if self.file else ''} {self.what}"


@dataclass(slots=True)
class Verified:
    """`checked` counts entries by place. `unrecorded` are entries of older versions, which say nothing of themselves;
    `removed` are the entries that a repair took out."""

    checked: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def bad(self, place: str) -> set[str]:
        """The names of entries of a place that have a fault."""
        prefix = f"{place}/"
        return {fault.entry[len(prefix) :] for fault in self.faults if fault.entry.startswith(prefix)}


def verify(store: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> Verified:
    """Read everything and compare. Run it inside the namespace. `progress` is told entries done and in all.

    Builds may run meanwhile; what they remove or make during the check is left out.
    """
    check = _Check(store, progress)
    check.run()
    return check.result


def repair(store: Store, verified: Verified) -> None:
    """Take out what has a fault and what depends on it; the next build makes it anew. Adds to `verified.removed`.

    What is in use is only put aside, and removed when no build is left that may use it. Raises StoreError, OSError.
    """
    names = {fault.entry for fault in verified.faults}
    bad_layers = verified.bad("layers")
    if bad_layers:
        layers, sound = _dependants(store, bad_layers)
        names.update(f"layers/{name}" for name in layers)
        names.update(f"outputs/{path.name}" for path in store.outputs.iterdir() if _tree_of(path) not in sound)
    for name in sorted(names):
        path = store.root / name
        if name.startswith("layers/"):
            forget(store, path)
        if name.startswith("keys/"):
            if not _is_list(path):
                path.unlink(missing_ok=True)
                verified.removed.append(name)
        elif os.path.lexists(path):
            put_aside(store, path)
            verified.removed.append(name)
    clean_keys(store)
    store.sweep()


class _Check:
    def __init__(self, store: Store, progress: Callable[[int, int], None]) -> None:
        self._store = store
        self._progress = progress
        self._done = 0
        self._total = 0
        self._inodes: set[int] = set()  # of the files of good packages
        self.result = Verified()

    def run(self) -> None:
        store = self._store
        blobs, packages = (_two_levels(place) for place in (store.blobs, store.packages))
        tools = [path for path in _listed(store.tools) if path.is_dir()]
        layers, outputs, keys = (_listed(place) for place in (store.layers, store.outputs, store.keys))
        self._total = sum(map(len, (blobs, packages, tools, layers, outputs, keys)))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for path, what in zip(blobs, pool.map(_blob_fault, blobs), strict=True):
                self._count("blobs", path, what)
            # Packages first: their files are those of the merged sets and the tools.
            for path, found in zip(packages, pool.map(self._package, packages), strict=True):
                self._inodes |= found
                self._count("packages", path, None)
        for path in tools:
            self._contents(path)
            self._count("tools", path, None)
        for path in layers:
            self._layer(path)
            self._count("layers", path, None)
        for path in outputs:
            self._contents(path)
            self._count("outputs", path, None)
        for path in keys:
            self._count("keys", path, self._key_fault(path))

    def _count(self, place: str, path: Path, what: str | None) -> None:
        self.result.checked[place] = self.result.checked.get(place, 0) + 1
        self._done += 1
        self._progress(self._done, self._total)
        if what is not None:
            self._fault(path, what)

    def _fault(self, path: Path, what: str, file: str = "") -> None:
        self.result.faults.append(Fault(str(path.relative_to(self._store.root)), what, file))

    def _package(self, path: Path) -> set[int]:
        """Check a package; the inode numbers of its files when they are good, or nothing is known of them."""
        if not self._contents(path):
            return set()
        with contextlib.suppress(FileNotFoundError):
            names = contents.names_below(os.fsencode(path))
            return {status.st_ino for _, status in names if stat.S_ISREG(status.st_mode)}
        return set()

    def _contents(self, path: Path) -> bool:
        """Compare an entry with its record; False when something is wrong."""
        self._store.uses.hold(str(path.relative_to(self._store.root)))
        found = []
        try:
            found = list(contents.differences(path, linked=self._inodes))
        except contents.NoContents as error:
            if not path.exists():
                return False  # removed meanwhile
            if (path / contents.NAME).exists():
                self._fault(path, str(error))
                return False
            self.result.unrecorded.append(str(path.relative_to(self._store.root)))
        except FileNotFoundError:
            return False
        except OSError as error:
            self._fault(path, f"cannot be read: {error.strerror}")
            return False
        for difference in found[:_FILES_TOLD]:
            self._fault(path, difference.what, difference.path)
        if len(found) > _FILES_TOLD:
            self._fault(path, f"has {len(found) - _FILES_TOLD} more damaged files")
        return not found

    def _layer(self, path: Path) -> None:
        if not self._contents(path) or path.name.startswith(PACKAGES):
            return
        try:
            LayerStore(self._store).check(path.name)
        except Damaged as damage:
            if path.exists():
                self._fault(path, str(damage))

    def _key_fault(self, path: Path) -> str | None:
        try:
            names = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return "is no list of layers"
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return "is no list of layers"
        gone = [name for name in names if not (self._store.layers / name).is_dir()]
        if not gone or path.name.startswith(OF_STEP) or not path.exists():
            return None  # the last layers of a step are only for explanations; they may be gone
        return f"leads to layers that are gone: {', '.join(gone)}"


def _blob_fault(path: Path) -> str | None:
    if not _SHA256.fullmatch(path.name):
        return "is not named by a sha256"
    try:
        with path.open("rb", buffering=0) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if found == path.name else f"holds other content, of sha256 {found}"


def _dependants(store: Store, bad: set[str]) -> tuple[set[str], set[str]]:
    """The bad layers with those that were made on them, and the identities of the trees that sound layers lead to."""
    layers = LayerStore(store)
    records: dict[str, Record] = {}
    for path in _listed(store.layers):
        record = layers.read(path.name)
        if record is not None:
            records[path.name] = record
    lost = set(bad)
    trees: set[str] = set()
    while True:
        for name, record in records.items():
            if any(entry.partition("/")[0] in lost for entry in record.stack) or record.tree_before in trees:
                lost.add(name)
        reached = {records[name].tree for name in lost if name in records}
        # A layer whose tree no whole layer leads to was made on one of which nothing can be read any more.
        known = {"", *(record.tree for name, record in records.items() if name not in lost)}
        for name, record in records.items():
            if name not in lost and record.tree_before not in known:
                lost.add(name)
                reached.add(record.tree)
        if reached <= trees:
            return lost, {record.tree for name, record in records.items() if name not in lost} - trees
        trees |= reached


def _tree_of(output: Path) -> str:
    """The identity of the tree that an output was made from; empty when it is not known."""
    try:
        return str(json.loads((output / "complete").read_text("utf-8"))["tree"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_list(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text("utf-8")), list)
    except (OSError, ValueError):
        return False


def _listed(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _two_levels(place: Path) -> list[Path]:
    return [path for folder in _listed(place) for path in _listed(folder)]
