"""Layers: what one step changed, kept under the step's key.

A layer is a directory `layers/ID/` with `record.json`, the frozen upper directories `0/`, `1/` … (a step has several
when the engine put packages under it half-way), `exports/` (files the step left beside the image), and `history.json`,
which only explanations read: the parts of the key and what the step asked the package engine for. A set of unpacked
packages is a layer too, `layers/pkg-DIGEST/0`. `keys/KEY` lists the layers that were made for a key; which of them fits
is decided by what they depended on besides the key (the state of package repositories). `keys/step-DIGEST` lists the
last layers of a step, whatever their keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.errors import StoreError
from dibble.store.contents import content_digest, seal
from dibble.store.places import ASIDE, Store, remove_tree, store_error, write_whole
from dibble.store.sparse import copy_sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dibble.store.locks import Holder

SCHEMA = 4
"""Of records; it is part of every layer's name, so that a layer of another version is never in the way."""
OF_STEP = "step-"
"""Begins the names in `keys/` that stand for a step rather than a key."""
PACKAGES = "pkg-"
"""Begins the names of layers that hold a merged set of packages."""
FAILED = "failed-"
"""Begins the names of layers, and of their keys, that hold what a failed step had written. The step of such a record is
`failed STEP`, so that nothing takes it for a result."""
_CANDIDATES_KEPT = 4
_TEXT_LIMIT = 64 << 10  # bytes; larger files are data rather than scripts
_HISTORY_KEPT = 16  # layers of one step, of all images together, that a new key is compared with


@dataclass(frozen=True, slots=True)
class Input:
    """Something outside the key that a step's result depends on: a repository and the digest of its signed index."""

    kind: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a step's result.

    `stack` names the directories the step adds to the overlay, topmost first, relative to `layers/`; an entry with
    `@` stands for one that a run provides. `tree` and `tree_before` are the identities of the target tree after the
    step and before it, `hooks` what it changed in the hooks tree (path → content digest, None for removed).
    `network` names the servers that the step reached, `inputs` those of them whose state is checked.
    `names` are those at the top of the layer's directories (`0/mnt`), by which a later build sees at a glance that it
    is whole. Sizes are bytes, times seconds since 1970.
    """

    id: str
    key: str
    step: str
    tree: str
    tree_before: str
    stack: tuple[str, ...] = ()
    hooks: Mapping[str, str | None] = field(default_factory=dict)
    exports: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    network: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    """Digests of what the step changed in the target: with `tree_before` they make `tree`."""
    initramfs_pending: bool = False
    seconds: float = 0.0
    bytes: int = 0
    made: float = 0.0
    names: tuple[str, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class History:
    """What explanations need of a layer. `parts` are the parts of its key by name; `requests` what the step asked the
    package engine for, in order, each with the packages that it came to (plain JSON data of `packages/base.py`)."""

    parts: Mapping[str, str] = field(default_factory=dict)
    requests: tuple[Mapping[str, Any], ...] = ()


NO_HISTORY = History()


class Damaged(Exception):
    """An entry is not what was put into the store; the text continues a sentence about it."""


class LayerStore:
    """Finds and keeps layers. `warn` is told of each damaged one, which is then put aside so that it is made anew."""

    def __init__(self, store: Store, warn: Callable[[str], None] = lambda text: None) -> None:
        self._store = store
        self._warn = warn

    def path(self, name: str) -> Path:
        """The directory of a stack entry."""
        return self._store.layers / name

    def making(
        self, key: str, on_wait: Callable[[Holder], None] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Be the only one who makes the layer of `key`; look again inside the block, another may have made it.

        `on_wait` is told once who is at it, when it has to wait.
        """
        return self._store.locked(f"step-{key}", on_wait)

    def making_packages(
        self, digest: str, on_wait: Callable[[Holder], None] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Be the only one who merges this set of packages; look again inside the block. Taken inside `making`."""
        return self._store.locked(f"pkg-{digest}", on_wait)

    def candidates(self, key: str) -> list[Record]:
        """The usable records for a key, the newest first; from now on they are in use by this process.

        A record whose layers are gone or damaged does not count. Looks at names only, never into trees.
        """
        found = []
        for name in self._ids(key):
            self._store.use(f"layers/{name}")
            try:
                record = self._whole(name)
            except Damaged as damage:
                self._put_aside(key, name, str(damage))
            else:
                if record is not None:
                    found.append(record)
        return found

    def elsewhere(self, key: str, fits: Callable[[Record], bool]) -> Record | None:
        """A fitting record from a place behind this store, taken into it; this one has nothing behind it."""
        return None

    def read(self, layer: str) -> Record | None:
        """The record of a layer; None when there is none, or none that this version of dibble can read."""
        try:
            return self._read(layer)
        except Damaged:
            return None

    def history(self, layer: str) -> History:
        """What is known of how a layer came about; empty for one that tells nothing."""
        try:
            data: Any = json.loads((self._store.layers / layer / "history.json").read_text())
            return History(data["parts"], tuple(data["requests"]))
        except (OSError, ValueError, KeyError, TypeError):
            return History()

    def of_step(self, step: str) -> list[Record]:
        """The last layers that steps of this id left, in whatever image, the newest first."""
        found = []
        for name in self._ids(step_key(step)):
            self._store.uses.hold(f"layers/{name}")
            if (record := self.read(name)) is not None:
                for owner in others(record):
                    self._store.uses.hold(f"layers/{owner}")
                found.append(record)
        return found

    def check(self, layer: str) -> None:
        """Raises Damaged when a layer is not whole at a glance."""
        self._whole(layer)

    def _ids(self, key: str) -> list[str]:
        try:
            ids = json.loads((self._store.keys / key).read_text("utf-8"))
            if isinstance(ids, list) and all(isinstance(name, str) and _is_name(name) for name in ids):
                return ids
        except FileNotFoundError:
            return []
        except (OSError, ValueError):
            pass
        self._warn(f"the cache's list of layers {self._store.keys / key} is damaged and begun anew")
        with contextlib.suppress(OSError):
            (self._store.keys / key).unlink()
        return []

    def _read(self, layer: str) -> Record | None:
        try:
            data: Any = json.loads((self._store.layers / layer / "record.json").read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise Damaged("is gone" if not self.path(layer).exists() else "has no record.json") from None
        except (OSError, ValueError) as error:
            raise Damaged(f"has a record.json that cannot be read ({error})") from None
        if isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] != SCHEMA:
            return None  # of another version of dibble; nothing is wrong with it
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(Record)}:
            raise Damaged("has a record.json without the fields that it must have")
        try:
            data["inputs"] = tuple(Input(**entry) for entry in data["inputs"])
            for name in ("stack", "exports", "network", "marks", "names"):
                data[name] = tuple(data[name])
        except TypeError:
            raise Damaged("has a record.json with fields of the wrong kind") from None
        return Record(**data)

    def _whole(self, layer: str) -> Record | None:
        """The record of a layer that is there with all its top names. Raises Damaged."""
        record = self._read(layer)
        if record is None:
            return None
        if record.id != layer:
            raise Damaged(f"has the record of another layer, {record.id}")
        missing = set(record.names).difference(top_names(self.path(layer)))
        if missing:
            raise Damaged(f"has lost {', '.join(sorted(missing))}")
        for owner in others(record):
            self._store.use(f"layers/{owner}")
        for entry in record.stack:
            if entry.startswith(PACKAGES):
                if not self._has_packages(entry):
                    raise Damaged(f"has lost its set of packages {entry}")
            elif not entry.startswith("@") and not self.path(entry).is_dir():
                raise Damaged(f"has lost {entry}")
        return record

    def _has_packages(self, entry: str) -> bool:
        try:
            with os.scandir(self.path(entry) / "mnt") as names:
                return next(names, None) is not None
        except OSError:
            return False

    def _put_aside(self, key: str, layer: str, damage: str) -> None:
        """Say that a layer is damaged, forget it and take it out of the way."""
        self._warn(f"the layer {layer} in the cache {damage}; its step is run again")
        # On a store that cannot be written it stays.
        with contextlib.suppress(OSError, StoreError), self._store.locked("keys"):
            if self._is_damaged(self._store.layers / layer):  # nobody has made it anew meanwhile
                self._forget(key, layer)
                put_aside(self._store, self._store.layers / layer)

    def keep(
        self,
        record: Record,
        uppers: list[Path],
        exports: Path | None,
        session: Path,
        history: History = NO_HISTORY,
    ) -> None:
        """Move a step's upper directories (topmost first) and its exports into the store, under the record's id.

        The directories must be on the store's file system. When the same layer exists already, ours is dropped.
        Raises StoreError; nothing half-made stands in the store then.
        """
        aside = session / f"keep-{record.id}"
        self._store.use(f"layers/{record.id}")
        try:
            aside.mkdir()
            for number, upper in enumerate(uppers):
                upper.rename(aside / str(number))
            if exports is not None:
                exports.rename(aside / "exports")
            (aside / "history.json").write_text(
                json.dumps({"parts": dict(history.parts), "requests": history.requests})
            )
            whole = replace(record, names=top_names(aside))
            (aside / "record.json").write_text(json.dumps(asdict(whole)), "utf-8")
            seal(aside)
            with self._store.locked("keys"):
                self._place(aside, self._store.layers / record.id)
                self._remember(record)
            remove_tree(aside)
        except OSError as error:
            raise store_error(error, self._store.root) from error

    def keep_failed(self, record: Record, uppers: list[Path], session: Path) -> None:
        """Keep what a step had written when it failed, in place of what an earlier failure under the same key left.

        The record is as that of a result, but with `failed_name` for its id; it never leaves this store. Raises
        StoreError.
        """
        key, step = _failed(record.key, record.step)
        try:
            put_aside(self._store, self._store.layers / record.id)
        except OSError as error:
            raise store_error(error, self._store.root) from error
        LayerStore.keep(self, replace(record, key=key, step=step), uppers, None, session)

    def failed(self, step: str, key: str, tree: str) -> Record | None:
        """What was kept of a failure of the step `step` under `key`; else the last one on the same target tree."""
        key, step = _failed(key, step)
        exact = LayerStore.candidates(self, key)
        on_tree = (record for record in self.of_step(step) if record.tree_before == tree and self._stands(record))
        return next(iter(exact), None) or next(on_tree, None)

    def _stands(self, record: Record) -> bool:
        return all(entry.startswith("@") or self.path(entry).is_dir() for entry in record.stack)

    def forget_failed(self, step: str, tree: str) -> None:
        """The step has run well on this tree: what its failures left is of no use any more."""
        for record in self.of_step(_failed("", step)[1]):
            if record.tree_before == tree:
                # Where it cannot be written, it stays.
                with contextlib.suppress(OSError, StoreError), self._store.locked("keys"):
                    self._forget(record.key, record.id)
                    self._forget(step_key(record.step), record.id)
                    put_aside(self._store, self._store.layers / record.id)

    def keep_packages(self, digest: str, made: Path, packages: Sequence[str] = ()) -> str:
        """Move a merged set of packages (the content of one lower directory) into the store; returns its entry.

        `packages` are the sha256 of the packages, whose files in `packages/` the set's files are links to.
        """
        name = PACKAGES + digest
        final = self._store.layers / name
        self._store.use(f"layers/{name}")
        if not self._has_packages(f"{name}/0"):
            aside = made.with_name(made.name + ".layer")
            record = {"schema": SCHEMA, "packages": sorted(packages), "made": time.time()}
            try:
                aside.mkdir()
                made.rename(aside / "0")
                (aside / "record.json").write_text(json.dumps(record), "utf-8")
                seal(aside, linked=True)
                self._place(aside, final)
                remove_tree(aside)
            except OSError as error:
                raise store_error(error, self._store.root) from error
        return f"{name}/0"

    def packages_entry(self, digest: str) -> str | None:
        """The stack entry of a set of packages, when it is in the store; from now on it is in use."""
        name = PACKAGES + digest
        self._store.use(f"layers/{name}")
        return f"{name}/0" if self._has_packages(f"{name}/0") else None

    def keep_text(self, digest: str, text: bytes) -> None:
        """Keep a script or list that a key was made of, by its sha256, so that a later change can be shown by line."""
        path = self._text(digest)
        if len(text) <= _TEXT_LIMIT and not path.exists():
            with contextlib.suppress(OSError):  # an explanation less
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, text)

    def text(self, digest: str) -> bytes | None:
        """A text that was kept; None for one that was not."""
        try:
            return self._text(digest).read_bytes()
        except OSError:
            return None

    def _text(self, digest: str) -> Path:
        return self._store.facts / "texts" / digest

    def _place(self, aside: Path, final: Path) -> None:
        """Rename into the store, unless a whole layer stands there already; a damaged one is put aside."""
        try:
            aside.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            if self._is_damaged(final):
                put_aside(self._store, final)
                aside.rename(final)

    def _is_damaged(self, final: Path) -> bool:
        if final.name.startswith(PACKAGES):
            return not self._has_packages(f"{final.name}/0")
        try:
            return self._whole(final.name) is None
        except Damaged:
            return True

    def _forget(self, key: str, layer: str) -> None:
        path = self._store.keys / key
        ids = [name for name in self._ids(key) if name != layer]
        if ids:
            write_whole(path, json.dumps(ids).encode())
        else:
            path.unlink(missing_ok=True)

    def _remember(self, record: Record) -> None:
        for name, kept in ((record.key, _CANDIDATES_KEPT), (step_key(record.step), _HISTORY_KEPT)):
            ids = [record.id, *(known for known in self._ids(name) if known != record.id)][:kept]
            write_whole(self._store.keys / name, json.dumps(ids).encode())


def others(record: Record) -> set[str]:
    """The other layers whose directories a record's stack has: sets of packages, and what serves several keys."""
    owners = {entry.partition("/")[0] for entry in record.stack if not entry.startswith("@")}
    return owners - {record.id}


def failed_name(key: str) -> str:
    """The name of the layer with what a step left when it failed under this key."""
    return f"{FAILED}{key[:40]}"


def _failed(key: str, step: str) -> tuple[str, str]:
    """Key and step of the record of a failure."""
    return f"{FAILED}{key}", f"failed {step}"


def step_key(step: str) -> str:
    """The name of the list of a step's last layers, whatever their keys."""
    return f"{OF_STEP}{hashlib.sha256(step.encode()).hexdigest()[:40]}"


class OutputStore:
    """Finished output files under the key of what they were made from."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def making(
        self, key: str, on_wait: Callable[[Holder], None] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Be the only one who makes the output of `key`; look again inside the block."""
        return self._store.locked(f"output-{key}", on_wait)

    def find(self, key: str) -> Path | None:
        """The directory with the files of `key`; from now on it is in use by this process."""
        path = self._store.outputs / key
        self._store.use(f"outputs/{key}")
        return path if self._is_whole(path) else None

    def keep(self, key: str, files: Mapping[str, Path], session: Path, *, tree: str = "") -> None:
        """Copy files (name → where it lies) into the store; reflinks where the file system can, keeps holes.

        `tree` is the identity of the tree that they were made from. When they are there already, ours are dropped.
        """
        aside = session / f"outputs-{key}"
        final = self._store.outputs / key
        self._store.use(f"outputs/{key}")
        try:
            aside.mkdir()
            with ThreadPoolExecutor(1) as pool:  # digests are made of the sources, while they are copied
                digests = {name.encode(): pool.submit(content_digest, path) for name, path in files.items()}
                for name, path in files.items():
                    copy_sparse(path, aside / name)
                known = {name: digest.result() for name, digest in digests.items()}
            sizes = {name: (aside / name).stat().st_size for name in files}
            record = {"schema": SCHEMA, "made": time.time(), "tree": tree, "sizes": sizes}
            (aside / "complete").write_text(json.dumps(record), "utf-8")
            seal(aside, known=known)
            if final.exists() and not self._is_whole(final):
                put_aside(self._store, final)
            aside.rename(final)
        except OSError as error:
            with contextlib.suppress(OSError):
                remove_tree(aside)
            if not self._is_whole(final):
                raise store_error(error, self._store.root) from error

    def _is_whole(self, path: Path) -> bool:
        try:
            sizes = json.loads((path / "complete").read_text("utf-8"))["sizes"]
            return all((path / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def top_names(layer: Path) -> tuple[str, ...]:
    """The names in each directory of a layer, as `0/mnt`."""
    found = []
    try:
        for part in os.scandir(layer):
            if part.is_dir(follow_symlinks=False):
                found += [f"{part.name}/{name.name}" for name in os.scandir(part.path)]
    except OSError:
        return ()
    return tuple(sorted(found))


def put_aside(store: Store, entry: Path) -> None:
    """Take an entry out of its place; it is removed when no build is left that may use it. Raises OSError."""
    from tempfile import mkdtemp

    if os.path.lexists(entry):
        entry.rename(Path(mkdtemp(prefix=ASIDE, dir=store.tmp)) / entry.name)


def _is_name(text: str) -> bool:
    return bool(text) and "/" not in text and not text.startswith(".")
