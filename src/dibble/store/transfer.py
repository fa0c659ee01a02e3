"""Moving layers, sets of packages and outputs between the store and a remote cache.

Runs inside the namespace: the files of a layer have the owners of the target. Sets of packages travel as archives of
their own, not as lists of packages to fetch again: mirrors drop old packages, a set's merge needs the tools tree, and
zstd unpacks several times faster than the xz of packages, for an archive about as large.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import NO_ROOM
from dibble.events import Events
from dibble.store.archive import NotPortable, pack, unpack
from dibble.store.descriptor import Descriptor, packages_of
from dibble.store.layers import History, LayerStore
from dibble.store.places import disk_full, remove_tree
from dibble.store.refused import EntryRefused
from dibble.store.transport import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dibble.store.archive import Archive
    from dibble.store.layers import OutputStore, Record
    from dibble.store.places import Store
    from dibble.store.remote import RemoteStore
    from dibble.store.transport import Readable

PACKAGES = "pkg-"
_LARGE = 1 << 20
"""Bytes of an archive from which on its fetching is shown, and goes on alone: threads that each make thousands of small
files take turns at Python's lock, and are several times slower together than one after the other."""


class Fetching:
    """Takes entries from a remote cache into the store. `session` is a directory on the store's file system."""

    def __init__(self, remote: RemoteStore, store: Store, session: Path, events: Events) -> None:
        self._remote = remote
        self._store = store
        self._session = session
        self._events = events
        self._one_large = threading.Lock()

    def layer(self, entry: Descriptor, layers: LayerStore) -> bool:
        """Put a layer and the sets of packages below it into the store; False when that cannot be had.

        Raises StoreError when the store takes nothing more.
        """
        record = entry.record
        assert record is not None
        if any(found.id == record.id for found in layers.candidates(record.key)):
            return True
        for name in packages_of(record):
            if not self._packages(name, layers):
                if self._remote.is_up:
                    self._remote.refuse(entry, f"stands on {name}, which is not to be had")
                return False

        def keep(place: Path) -> None:
            uppers = [place / name for name in sorted(set(entry.tops) - {"exports"}, key=int)]
            exports = place / "exports" if "exports" in entry.tops else None
            layers.keep(record, uppers, exports, self._session, History(entry.parts))

        return self._take(entry, record.step, keep)

    def output(self, entry: Descriptor, outputs: OutputStore) -> bool:
        """Put the files of an output into the store; False when they cannot be had. Raises StoreError."""

        def keep(place: Path) -> None:
            outputs.keep(entry.name, {name: place / name for name in entry.tops}, self._session)

        return self._take(entry, "outputs", keep)

    def _packages(self, name: str, layers: LayerStore) -> bool:
        digest = name.removeprefix(PACKAGES)
        if layers.packages_entry(digest) is not None:
            return True
        entry = self._remote.packages(name)
        return entry is not None and self._take(
            entry, "packages", lambda place: _keep_packages(layers, digest, place / "0")
        )

    def _take(self, entry: Descriptor, title: str, keep: Callable[[Path], None]) -> bool:
        place = Path(tempfile.mkdtemp(prefix="fetch-", dir=self._session))
        try:
            if entry.archive is not None:
                self._unpack(entry, entry.archive, title, place)
            keep(place)
        except EntryRefused as error:
            self._remote.refuse(entry, str(error))
            return False
        except Unreachable as error:
            self._remote.give_up(error)
            return False
        except OSError as error:
            if error.errno in NO_ROOM:
                raise disk_full(error, self._store.root) from error
            self._remote.refuse(entry, f"cannot be unpacked here ({error.strerror})")
            return False
        finally:
            remove_tree(place)
        return True

    def _unpack(self, entry: Descriptor, archive: Archive, title: str, place: Path) -> None:
        large = archive.size >= _LARGE
        events = self._events if large else Events()
        with (
            self._one_large if large else contextlib.nullcontext(),
            events.activity(f"fetch {title}") as activity,
            self._remote.opened(archive) as source,
        ):
            counted = _Counted(source, lambda done: activity.progress(done, archive.size, "bytes"))
            unpack(counted, archive, place, entry.tops)
        self._check_tops(entry, place)

    def _check_tops(self, entry: Descriptor, place: Path) -> None:
        for name in entry.tops:
            path = place / name
            if path.is_symlink() or not (path.is_file() if entry.kind == "output" else path.is_dir()):
                raise EntryRefused(f'has no "{name}"')


class Pushing:
    """Copies entries of the store to a remote cache. `session` is a directory for the archives on their way."""

    def __init__(self, remote: RemoteStore, store: Store, session: Path) -> None:
        self._remote = remote
        self._store = store
        self._session = session

    def layer(self, record: Record) -> int:
        """Copy a layer and the sets of packages below it, where missing; returns the bytes that went.

        Raises Unreachable, NotPortable, OSError.
        """
        if any(entry.name == record.id for entry in self._remote.layers(record.key)):
            return 0
        sent = sum(self._packages(name) for name in packages_of(record))
        portable, trees = _with_own_directories(record, self._store.layers)
        history = LayerStore(self._store).history(record.id)
        return sent + self._send(
            Descriptor("layer", record.id, None, record=portable, parts=dict(history.parts)), trees
        )

    def output(self, key: str, folder: Path) -> int:
        """Copy the files of an output, where missing; returns the bytes that went. Raises as `layer` does."""
        if self._remote.output(key) is not None:
            return 0
        files = {path.name: path for path in folder.iterdir() if path.name.startswith("output")}
        return self._send(Descriptor("output", key, None), files)

    def _packages(self, name: str) -> int:
        if self._remote.packages(name) is not None:
            return 0
        return self._send(Descriptor("packages", name, None), {"0": self._store.layers / name / "0"})

    def _send(self, entry: Descriptor, trees: Mapping[str, Path]) -> int:
        if not trees:
            self._remote.publish(entry)
            return 0
        with tempfile.NamedTemporaryFile(prefix="push-", dir=self._session) as file:
            try:
                archive = pack(trees, file)
            except NotPortable as error:
                raise NotPortable(f"{entry.kind} {entry.name} {error}") from error
            file.flush()
            self._remote.put_archive(archive, Path(file.name))
        self._remote.publish(replace(entry, archive=archive, tops=tuple(sorted(trees))))
        return archive.size


def _with_own_directories(record: Record, layers: Path) -> tuple[Record, dict[str, Path]]:
    """The record, and its directories by their names in it, as if none of them were another layer's.

    A result that serves a second tree lends its directories (`run/reuse.py`). Elsewhere the layer has them itself; they
    do not travel twice, because archives are named by their content.
    """
    stack: list[str] = []
    trees: dict[str, Path] = {}
    for entry in record.stack:
        if entry.startswith(("@", PACKAGES)):
            stack.append(entry)
        else:
            stack.append(f"{record.id}/{len(trees)}")
            trees[str(len(trees))] = layers / entry
    if record.exports:
        trees["exports"] = layers / record.id / "exports"
    return replace(record, stack=tuple(stack)), trees


class _Counted:
    def __init__(self, source: Readable, on_progress: Callable[[int], None]) -> None:
        self._source = source
        self._on_progress = on_progress
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._done += len(data)
        self._on_progress(self._done)
        return data


def _keep_packages(layers: LayerStore, digest: str, made: Path) -> None:
    layers.keep_packages(digest, made)
