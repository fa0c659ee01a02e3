"""What the store holds, entry by entry: how big, how old, when last used, and which files entries have in common."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dibble.store.layers import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dibble.store.places import Store

Kind = Literal["download", "package", "lists", "tools", "packages", "layer", "output", "facts"]
KINDS: tuple[Kind, ...] = ("download", "package", "lists", "tools", "packages", "layer", "output", "facts")
"""In the order in which a file that several entries have is counted."""
_BLOCK = 512  # stat(2): st_blocks counts these, whatever the file system


@dataclass(slots=True)
class Entry:
    """One thing that can be removed alone. `name` is its path in the store; times are seconds since 1970.

    `inodes` and `sizes` are of all names below it, `bytes` the sum over its different files, on disk. A time that lies
    in the future, as after a clock was set back, is the present.
    """

    kind: Kind
    name: str
    what: str
    made: float
    used: float
    bytes: int = 0
    inodes: array[int] = field(default_factory=lambda: array("Q"), repr=False)
    sizes: array[int] = field(default_factory=lambda: array("Q"), repr=False)
    needs: tuple[str, ...] = ()
    """Names of entries without which this one is worth nothing."""
    trees: tuple[str, str] | None = None
    """Of a layer: the identities of the target tree before it and after it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one kind takes: bytes on disk, each file counted once in the first kind that has it, and those of files
    that were counted before (`shared`)."""

    kind: Kind
    entries: int
    bytes: int
    shared: int


def entries_of(store: Store, *, now: float | None = None) -> list[Entry]:
    """Every entry, with its files looked at. Run it inside the namespace. Linear in files.

    An entry that a build removes or moves meanwhile is left out.
    """
    moment = time.time() if now is None else now
    found = []
    for kind, path in _paths(store):
        try:
            entry = _entry(store, kind, path, moment)
            _measure(entry, path)
        except FileNotFoundError:
            continue
        found.append(entry)
    return found


def usage_of(entries: Iterable[Entry]) -> list[Usage]:
    """The sums by kind, in the order of KINDS."""
    seen: set[int] = set()
    sums = {kind: [0, 0, 0] for kind in KINDS}
    for entry in sorted(entries, key=lambda entry: KINDS.index(entry.kind)):
        of_kind = sums[entry.kind]
        of_kind[0] += 1
        own = dict(zip(entry.inodes, entry.sizes, strict=True))
        for inode, size in own.items():
            of_kind[2 if inode in seen else 1] += size
        seen.update(own)
    return [Usage(kind, *sums[kind]) for kind in KINDS]


class Freeing:
    """How many bytes become free when entries are removed one after another: a file goes with its last name."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._names: Counter[int] = Counter()
        sizes: dict[int, int] = {}
        for entry in entries:
            self._names.update(entry.inodes)
            sizes.update(zip(entry.inodes, entry.sizes, strict=True))
        self.left = sum(sizes.values())

    def remove(self, entry: Entry) -> int:
        """Count an entry as removed; returns the bytes that this frees."""
        freed = 0
        for inode, size in zip(entry.inodes, entry.sizes, strict=True):
            self._names[inode] -= 1
            if not self._names[inode]:
                freed += size
        self.left -= freed
        return freed


def _paths(store: Store) -> Iterator[tuple[Kind, Path]]:
    for kind, place in (("download", store.blobs), ("package", store.packages)):
        for folder in _listed(place):
            for path in _listed(folder):
                yield ("download" if kind == "download" else "package"), path
    for path in _listed(store.repositories):
        if path.is_dir():
            yield "lists", path
    for path in _listed(store.tools):
        if path.is_dir():
            yield "tools", path
    for path in _listed(store.layers):
        yield ("packages" if path.name.startswith(PACKAGES) else "layer"), path
    for path in _listed(store.outputs):
        yield "output", path
    for path in (store.facts, store.builds):
        if _listed(path):
            yield "facts", path


def _listed(place: Path) -> list[Path]:
    """What lies in a directory, without what is being made."""
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entry(store: Store, kind: Kind, path: Path, now: float) -> Entry:
    status = path.stat()
    used = min(status.st_mtime, now)
    made, what = used, ""
    needs: tuple[str, ...] = ()
    data: dict[str, object] = {}
    if kind in ("layer", "packages", "output"):
        data = _json(path / ("complete" if kind == "output" else "record.json"))
        number = data.get("made")
        made = min(float(number), now) if isinstance(number, int | float) else used
        what, needs = _told(kind, data)
    elif kind == "package":
        with contextlib.suppress(OSError):
            made = min((path / "list").stat().st_mtime, now)
        what = _package_name(path / "control" / "control")
    elif kind == "download":
        what = _package_name(store.packages / path.parent.name / path.name / "control" / "control")
    entry = Entry(kind, str(path.relative_to(store.root)), what, made, used, needs=needs)
    if kind == "layer":
        entry.trees = (str(data.get("tree_before", "")), str(data.get("tree", "")))
    return entry


def _told(kind: Kind, data: dict[str, object]) -> tuple[str, tuple[str, ...]]:
    """What a record says of its entry, in words, and what the entry needs."""
    if kind == "layer":
        stack = data.get("stack")
        owners = {str(name).partition("/")[0] for name in stack} if isinstance(stack, list) else set()
        others = sorted(name for name in owners - {str(data.get("id"))} if not name.startswith("@"))
        return str(data.get("step", "")), tuple(f"layers/{name}" for name in others)
    if kind == "packages":
        packages = data.get("packages")
        return (f"{len(packages)} packages" if isinstance(packages, list) else ""), ()
    sizes = data.get("sizes")
    names = sorted(sizes) if isinstance(sizes, dict) else []
    return ", ".join(str(name).removeprefix("output.") for name in names), ()


def _json(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _package_name(control: Path) -> str:
    """`NAME VERSION` from a package's control file, or nothing."""
    try:
        lines = control.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    fields = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))
    return f"{fields.get('Package', '')} {fields.get('Version', '')}".strip()


def _measure(entry: Entry, path: Path) -> None:
    """Note all files of an entry; a file with several names in it is there several times."""
    status = os.lstat(path)
    _note(entry, status)
    pending = [os.fspath(path)] if stat.S_ISDIR(status.st_mode) else []
    while pending:
        with os.scandir(pending.pop()) as names:
            for name in names:
                _note(entry, name.stat(follow_symlinks=False))
                if name.is_dir(follow_symlinks=False):
                    pending.append(name.path)
    entry.bytes = sum(dict(zip(entry.inodes, entry.sizes, strict=True)).values())


def _note(entry: Entry, status: os.stat_result) -> None:
    entry.inodes.append(status.st_ino)
    entry.sizes.append(status.st_blocks * _BLOCK)
