"""A remote cache: which entries it has, whether they may be believed, and adding to them.

    dibble-1/keys/KK/KEY/ID.json       one layer of a key      dibble-1/packages/pkg-DIGEST.json   a set of packages
    dibble-1/keys/KK/KEY/index.json    all of the key's        dibble-1/outputs/KEY.json           finished files
    dibble-1/archives/SS/SHA256.tar.zst                        the content of each of them

Archives are named by their content and written first, descriptors after them: whoever finds an entry finds all of it,
and two machines that write at once cannot mix their work. The index saves a listing: one request answers for a key.
Whoever adds a layer lists the key's folder and writes the index again until it says what the listing says; so the last
one to write has seen everybody's (a store must list what was written before, as S3 has since 2020, GCS and file systems
always). The format is documented in docs/remote-cache.md.

Nothing here fails a build: a place that does not answer is told once and left alone from then on.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

from dibble.store.descriptor import FORMAT, Descriptor, enveloped, opened
from dibble.store.refused import EntryRefused, OtherVersion, printable
from dibble.store.transport import Missing, Transport, Unreachable, open_transport, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.events import Events
    from dibble.store.archive import Archive
    from dibble.store.signature import Signer, Trust
    from dibble.store.transport import Readable

_PREFIX = f"dibble-{FORMAT}"
_LAYERS_LISTED = 4  # of a key: as many as the local store looks at
_INDEX_TRIES = 5


class RemoteStore:
    """One remote cache during one build or command. May be used from several threads."""

    def __init__(self, url: str, events: Events, *, signer: Signer | None = None, trust: Trust | None = None) -> None:
        self.name = shown(url)
        self._url = url
        self._events = events
        self._signer = signer
        self._trust = trust
        self._lock = threading.RLock()
        self._transport: Transport | None = None
        self._process = 0
        self._answers: dict[str, list[Descriptor]] = {}  # by the name of the object that was asked for
        self._refused: set[tuple[str, str]] = set()
        self._distrusted: set[str] = set()  # archives of refused entries
        self._down = False

    @property
    def is_up(self) -> bool:
        """Whether it has answered so far; False from its first failure on."""
        return not self._down

    # --- what there is

    def has(self, key: str) -> bool:
        """Whether there is a layer for a step's key that may be believed. One request, asked once."""
        return bool(self.layers(key))

    def layers(self, key: str) -> list[Descriptor]:
        """The layers of a step's key, the newest first; none when the cache does not answer."""
        found = self._entries(f"{_folder(key)}/index.json", "layer")
        return [entry for entry in found if entry.record is not None and entry.record.key == key]

    def packages(self, name: str) -> Descriptor | None:
        """A set of packages by its name, `pkg-DIGEST`."""
        return self._one(_place_of("packages", name), "packages", name)

    def output(self, key: str) -> Descriptor | None:
        """The files of an output by their key."""
        return self._one(_place_of("output", key), "output", key)

    @contextlib.contextmanager
    def opened(self, archive: Archive) -> Iterator[Readable]:
        """An archive's bytes as they arrive. Raises Unreachable, and EntryRefused where it is missing."""
        try:
            with self._place().open(_archive_name(archive)) as source:
                yield source
        except Missing as error:
            raise EntryRefused(f"names an archive that is not there ({_archive_name(archive)})") from error

    def refuse(self, entry: Descriptor, reason: str) -> None:
        """Say what is wrong with an entry, and never give it out again."""
        with self._lock:
            again = (entry.kind, entry.name) in self._refused
            self._refused.add((entry.kind, entry.name))
            if entry.archive is not None:
                self._distrusted.add(entry.archive.sha256)
        if not again:
            self._warn_refused(f"the {_in_words(entry)}", reason)

    def give_up(self, error: Unreachable) -> None:
        """Say that the cache cannot be used, once, and leave it alone from now on."""
        with self._lock:
            again, self._down = self._down, True
        if not again:
            self._events.note(
                f"the remote cache {self.name} cannot be used: {error}; the build goes on without it", "warning"
            )

    # --- adding

    def put_archive(self, archive: Archive, file: Path) -> None:
        """Write an archive unless it is there; one that proved to be damaged is replaced. Raises Unreachable."""
        name = _archive_name(archive)
        if archive.sha256 in self._distrusted or not self._place().exists(name):
            self._place().put(name, file)

    def publish(self, entry: Descriptor) -> None:
        """Make an entry known, whose archive is there. Raises Unreachable."""
        envelope = enveloped(entry, self._signer.sign if self._signer else None)
        data = json.dumps(envelope).encode()
        if entry.record is None:
            name = _place_of(entry.kind, entry.name)
            self._place().put(name, data)
        else:
            folder = _folder(entry.record.key)
            name = f"{folder}/index.json"
            self._place().put(f"{folder}/{entry.name}.json", data)
            self._write_index(folder, entry.name, envelope)
        with self._lock:
            self._answers[name] = [entry, *self._answers.get(name, [])]

    def _write_index(self, folder: str, own: str, envelope: dict[str, str | None]) -> None:
        """List all layers of a key in its index, ours first."""
        place = self._place()
        written: set[str] | None = None
        for _ in range(_INDEX_TRIES):
            there = place.names(folder)
            if there is None:  # a web server: what its index lists is all that can be known
                place.put(f"{folder}/index.json", _index([envelope, *_others(self._index_of(folder), own)]))
                return
            names = {name for name in there if name != "index.json"} | {f"{own}.json"}
            if names == written:
                return
            entries = [envelope]
            for name in sorted(names - {f"{own}.json"}):
                with contextlib.suppress(Missing, ValueError):
                    entries.append(json.loads(place.get(f"{folder}/{name}")))
            place.put(f"{folder}/index.json", _index(entries))
            written = names

    def _index_of(self, folder: str) -> list[object]:
        try:
            data = json.loads(self._place().get(f"{folder}/index.json"))
        except (Missing, ValueError):
            return []
        entries = data.get("entries") if isinstance(data, dict) else None
        return entries if isinstance(entries, list) else []

    # --- reading with suspicion

    def _one(self, place: str, kind: str, name: str) -> Descriptor | None:
        return next((entry for entry in self._entries(place, kind) if entry.name == name), None)

    def _entries(self, name: str, kind: str) -> list[Descriptor]:
        """The believable entries in an object: an envelope, or an index of several."""
        with self._lock:
            found = self._answers.get(name)
        if found is None:
            if self._down:
                return []
            try:
                data = self._place().get(name)
            except Missing:
                data = None
            except Unreachable as error:
                self.give_up(error)
                return []
            found = self._read(name, data, kind) if data is not None else []
            with self._lock:
                self._answers[name] = found
        return [entry for entry in found if (entry.kind, entry.name) not in self._refused]

    def _read(self, name: str, data: bytes, kind: str) -> list[Descriptor]:
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            self._warn_refused(name, "is no JSON; it may be truncated")
            return []
        several = content.get("entries") if isinstance(content, dict) and kind == "layer" else [content]
        if not isinstance(several, list):
            self._warn_refused(name, "is no list of entries")
            return []
        found = []
        for envelope in several[:_LAYERS_LISTED]:
            try:
                entry = opened(envelope, self._trust.check if self._trust else None)
                if entry.kind != kind:
                    raise EntryRefused(f"is of another kind, {entry.kind}")
                if not _stands_at(entry, name):
                    raise EntryRefused(f"was made for another place, {_in_words(entry)}")
            except OtherVersion:
                continue
            except EntryRefused as error:
                self._warn_refused(name, str(error))
            else:
                found.append(entry)
        return found

    def _warn_refused(self, what: str, reason: str) -> None:
        self._events.note(printable(f"the remote cache {self.name}: {what} {reason}; it is not used"), "warning")

    def _place(self) -> Transport:
        with self._lock:
            if self._transport is None or self._process != os.getpid():  # connections are not for a fork
                self._transport = open_transport(self._url)
                self._process = os.getpid()
            return self._transport


def _folder(key: str) -> str:
    return f"{_PREFIX}/keys/{key[:2]}/{key}"


def _place_of(kind: str, name: str) -> str:
    return f"{_PREFIX}/{'packages' if kind == 'packages' else 'outputs'}/{name}.json"


def _archive_name(archive: Archive) -> str:
    return f"{_PREFIX}/archives/{archive.sha256[:2]}/{archive.sha256}.tar.zst"


def _stands_at(entry: Descriptor, name: str) -> bool:
    """Whether an entry was made for the object it was found in."""
    if entry.record is not None:
        return name == f"{_folder(entry.record.key)}/index.json"
    return name == _place_of(entry.kind, entry.name)


def _in_words(entry: Descriptor) -> str:
    if entry.record is not None:
        return f"layer {entry.name} of {entry.record.step}"
    return f"set of packages {entry.name}" if entry.kind == "packages" else f"output {entry.name}"


def _index(entries: list[object] | list[dict[str, str | None]]) -> bytes:
    return json.dumps({"entries": entries[:_LAYERS_LISTED]}).encode()


def _others(entries: list[object], own: str) -> list[object]:
    """The envelopes that are not of our layer; ours is written anew."""
    found = []
    for envelope in entries:
        with contextlib.suppress(EntryRefused):
            if opened(envelope, None).name != own:
                found.append(envelope)
    return found
