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
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dibble.errors import StoreError
from dibble.store.places import Store, disk_full, remove_tree, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

SCHEMA = 3
"""Of records; it is part of every layer's name, so that a layer of another version is never in the way."""
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
    Sizes are bytes, times seconds since 1970.
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
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class History:
    """What explanations need of a layer. `parts` are the parts of its key by name; `requests` what the step asked the
    package engine for, in order, each with the packages that it came to (plain JSON data of `packages/base.py`)."""

    parts: Mapping[str, str] = field(default_factory=dict)
    requests: tuple[Mapping[str, Any], ...] = ()


NO_HISTORY = History()


class LayerStore:
    """Finds and keeps layers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def path(self, name: str) -> Path:
        """The directory of a stack entry."""
        return self._store.layers / name

    def candidates(self, key: str) -> list[Record]:
        """The usable records for a key, the newest first. A record whose layers are gone does not count."""
        found = []
        for name in self._ids(key):
            record = self.read(name)
            if record and all(self.path(entry).is_dir() for entry in record.stack if not entry.startswith("@")):
                found.append(record)
        return found

    def elsewhere(self, key: str, fits: Callable[[Record], bool]) -> Record | None:
        """A fitting record from a place behind this store, taken into it; this one has nothing behind it."""
        return None

    def read(self, layer: str) -> Record | None:
        try:
            data: Any = json.loads((self._store.layers / layer / "record.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA or set(data) != {f.name for f in fields(Record)}:
            return None
        data["inputs"] = tuple(Input(**entry) for entry in data["inputs"])
        for name in ("stack", "exports", "network", "marks"):
            data[name] = tuple(data[name])
        return Record(**data)

    def history(self, layer: str) -> History:
        """What is known of how a layer came about; empty for one that tells nothing."""
        try:
            data: Any = json.loads((self._store.layers / layer / "history.json").read_text())
            return History(data["parts"], tuple(data["requests"]))
        except (OSError, ValueError, KeyError, TypeError):
            return History()

    def of_step(self, step: str) -> list[Record]:
        """The last layers that steps of this id left, in whatever image, the newest first."""
        records = (self.read(name) for name in self._ids(_step_key(step)))
        return [record for record in records if record is not None]

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
        """
        aside = session / f"keep-{record.id}"
        try:
            aside.mkdir()
            for number, upper in enumerate(uppers):
                upper.rename(aside / str(number))
            if exports is not None:
                exports.rename(aside / "exports")
            (aside / "history.json").write_text(
                json.dumps({"parts": dict(history.parts), "requests": history.requests})
            )
            (aside / "record.json").write_text(json.dumps(asdict(record)))
            self._place(aside, self._store.layers / record.id)
            self._remember(record)
        except OSError as error:
            raise disk_full(error, self._store.root) from error

    def keep_packages(self, digest: str, made: Path) -> str:
        """Move a merged set of packages (the content of one lower directory) into the store; returns its entry."""
        name = f"pkg-{digest}"
        final = self._store.layers / name
        if not final.is_dir():
            aside = made.with_name(made.name + ".layer")
            aside.mkdir()
            made.rename(aside / "0")
            self._place(aside, final)
        return f"{name}/0"

    def packages_entry(self, digest: str) -> str | None:
        """The stack entry of a set of packages, when it is in the store."""
        entry = f"pkg-{digest}/0"
        return entry if self.path(entry).is_dir() else None

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

    @contextlib.contextmanager
    def making(self, key: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        with self._store.locked(f"making-{key[:40]}"):
            yield

    def _place(self, aside: Path, final: Path) -> None:
        try:
            aside.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            remove_tree(aside)

    def _remember(self, record: Record) -> None:
        with self._store.locked("keys"):
            for name, kept in ((record.key, _CANDIDATES_KEPT), (_step_key(record.step), _HISTORY_KEPT)):
                ids = [record.id, *(known for known in self._ids(name) if known != record.id)][:kept]
                write_whole(self._store.keys / name, json.dumps(ids).encode())

    def _ids(self, name: str) -> list[str]:
        try:
            found: list[str] = json.loads((self._store.keys / name).read_text())
        except (FileNotFoundError, ValueError):
            return []
        return found


def _step_key(step: str) -> str:
    return f"step-{hashlib.sha256(step.encode()).hexdigest()[:40]}"


class OutputStore:
    """Finished output files under the key of what they were made from."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, key: str) -> Path | None:
        """The directory with the files of `key`."""
        path = self._store.outputs / key
        return path if (path / "complete").exists() else None

    def keep(self, key: str, files: Mapping[str, Path], session: Path) -> None:
        """Copy files (name → where it lies) into the store; reflinks where the file system can, keeps holes."""
        aside = session / f"outputs-{key}"
        aside.mkdir()
        try:
            for name, path in files.items():
                copy_sparse(path, aside / name)
            (aside / "complete").write_text(str(time.time()))
            aside.rename(self._store.outputs / key)
        except OSError as error:
            if not self.find(key):
                with contextlib.suppress(OSError):
                    remove_tree(aside)
                raise disk_full(error, self._store.root) from error
            remove_tree(aside)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes; shares the blocks where the file system can (copy_file_range(2))."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        position = 0
        while position < size:
            try:
                start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:
                return  # only a hole is left
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            while start < end:
                try:
                    count = os.copy_file_range(reader.fileno(), writer.fileno(), end - start, start, start)
                except OSError:
                    os.lseek(reader.fileno(), start, os.SEEK_SET)
                    os.lseek(writer.fileno(), start, os.SEEK_SET)
                    count = os.sendfile(writer.fileno(), reader.fileno(), start, end - start)
                if count == 0:
                    raise StoreError(f"{source} became shorter while it was copied")
                start += count
            position = end


def tree_bytes(path: Path) -> int:
    """Apparent bytes of the regular files below a directory."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
    return total


def drop(path: Path) -> None:
    """Remove a file or a directory."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
