"""Which layer of a container each file of the finished tree is in, so that images of the same beginnings share layers.

A build leaves an overlay of directories, each with the element whose script wrote it. The layers are, from below: the
base, which is what the phase root.d left of programs; one for each element, in the order in which their scripts first
ran; and a last one, with what dibble did itself and the state of the base (/etc, /var …), which nearly every step
changes. What a later script removed is in no layer, so there are no whiteouts. A program that a later script replaced
is in both layers: the lower one must not depend on what comes above it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dibble.outputs.base import BASE
from dibble.outputs.tar_file import attributes_of, is_emptied, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dibble.outputs.base import Lower, Source
    from dibble.outputs.tar_file import Entry

_PROGRAMS = frozenset((b"usr", b"opt", b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32"))
"""Directories of what is installed and then only read (Filesystem Hierarchy Standard 3.0, "usr", "opt")."""
_MOST = 100  # layers of elements; Docker takes 125 layers (moby, layer/layer_store.go)
_OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")

_Chain: TypeAlias = "list[tuple[int, bytes]]"
"""The directories that have a name, topmost first, down to where it was made: (rank of the layer, path)."""


@dataclass(frozen=True, slots=True)
class ContainerLayer:
    """`entries` as TarWriter takes them, each directory before what it holds; `name` tells a reader what it is."""

    name: str
    entries: tuple[Entry, ...]


def layers_of(source: Source, epoch: int) -> list[ContainerLayer]:
    """The layers, the lowest first; unpacked one over another they are the tree. None is empty. Without knowledge of
    how the tree came about there is one. Linear in the names of the tree and of the directories it lies in."""
    if not source.lowers:
        return [ContainerLayer("the whole tree", tuple(walk(source.root)))]
    return _Sorted(source.root, source.lowers, epoch).layers()


class _Sorted:
    def __init__(self, root: Path, lowers: Sequence[Lower], epoch: int) -> None:
        elements = list(dict.fromkeys(lower.owner for lower in reversed(lowers) if lower.owner not in ("", BASE)))
        self._names = ["base", *elements[:_MOST], "state"]
        self._last = len(self._names) - 1
        ranks = {BASE: 0, **{name: number + 1 for number, name in enumerate(elements[:_MOST])}}
        self._epoch = epoch
        self._order: dict[bytes, int] = {}
        self._directories: dict[bytes, _Chain] = {}
        self._placed: list[dict[bytes, bytes]] = [{} for _ in self._names]
        linked: dict[tuple[int, int], list[bytes]] = {}
        top: _Chain = []
        for lower in lowers:
            path = os.fsencode(lower.path)
            if os.path.isdir(path):  # noqa: PTH112 - bytes
                top.append((ranks.get(lower.owner, self._last), path))
                if _is_opaque(path):
                    break
        for name, chain, status in _names(os.fsencode(root), top):
            self._order[name] = len(self._order)
            if stat.S_ISDIR(status.st_mode):
                self._directories[name] = chain
                self._placed[self._rank(name, chain[-1][0])][name] = b""
                continue
            self._place_file(name, chain)
            if status.st_nlink > 1:
                linked.setdefault((status.st_dev, status.st_ino), []).append(name)
        self._join(linked)

    def _rank(self, name: bytes, rank: int) -> int:
        """The layer for what the directories of a rank have: the base's layer holds programs only."""
        return rank if rank or _is_program(name) else self._last

    def _place_file(self, name: bytes, chain: _Chain) -> None:
        own = self._rank(name, chain[0][0])
        self._placed[own][name] = chain[0][1]
        if _is_program(name):
            for rank, path in chain[1:]:
                if rank < own:
                    self._placed[rank].setdefault(name, path)

    def _join(self, linked: dict[tuple[int, int], list[bytes]]) -> None:
        """Put all names of one file into one layer: a link across layers is not one for every reader."""
        for names in linked.values():
            ranks = [max(rank for rank, placed in enumerate(self._placed) if name in placed) for name in names]
            for name, rank in zip(names, ranks, strict=True):
                if rank < max(ranks):
                    self._placed[max(ranks)][name] = self._placed[rank].pop(name)

    def layers(self) -> list[ContainerLayer]:
        whole = []
        for rank, placed in enumerate(self._placed):
            needed = dict(placed)
            for name in placed:
                needed.update(dict.fromkeys(_above(name), b""))
            whole.append({name: path or self._version(name, rank) for name, path in needed.items()} if placed else {})
        self._correct(whole)
        return [
            ContainerLayer(name, tuple((key, files[key], os.lstat(files[key])) for key in sorted(files, key=self._at)))
            for name, files in zip(self._names, whole, strict=True)
            if files
        ]

    def _at(self, name: bytes) -> int:
        return self._order[name]

    def _version(self, name: bytes, rank: int) -> bytes:
        """The directory as a layer shows it: finished if it came to that by then, else as its own scripts left it."""
        chain = self._directories[name]
        if chain[0][0] <= rank:
            return chain[0][1]
        own = next((path for found, path in chain if found == rank), None)
        return own or next((path for found, path in chain if found < rank), chain[0][1])

    def _correct(self, whole: list[dict[bytes, bytes]]) -> None:
        """Give directories that no layer shows as they are in the end to the last one."""
        last = whole[-1]
        for name, chain in self._directories.items():
            shown = next((files[name] for files in reversed(whole) if name in files), b"")
            if shown != chain[0][1] and (not shown or self._told(shown) != self._told(chain[0][1])):
                for directory in (name, *_above(name)):
                    last.setdefault(directory, self._directories[directory][0][1])

    def _told(self, path: bytes) -> tuple[object, ...]:
        """What an archive tells of a directory."""
        status = os.lstat(path)
        mtime = min(status.st_mtime_ns // 1_000_000_000, self._epoch)
        return status.st_mode, status.st_uid, status.st_gid, mtime, attributes_of(path)


def _above(name: bytes) -> list[bytes]:
    """The directories that a name is in, up to the top."""
    parts = name.split(b"/")
    return [b"/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _names(root: bytes, top: _Chain) -> Iterator[tuple[bytes, _Chain, os.stat_result]]:
    """Every name of the tree, in the order of an archive, with the directories that it comes from."""
    waiting: list[tuple[bytes, bytes, _Chain]] = [(b".", root, top)]
    while waiting:
        name, path, chain = waiting.pop()
        status = os.lstat(path)
        yield name, chain, status
        if not stat.S_ISDIR(status.st_mode) or is_emptied(name):
            continue
        for child in sorted(os.listdir(path), reverse=True):  # noqa: PTH208 - bytes, and many
            below = path + b"/" + child
            waiting.append((name + b"/" + child, below, _chain(chain, child, os.lstat(below).st_mode)))


def _chain(above: _Chain, name: bytes, mode: int) -> _Chain:
    found: _Chain = []
    for rank, directory in above:
        path = directory + b"/" + name
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        # A whiteout is a device 0:0 (Documentation/filesystems/overlayfs.rst); below it the name was another file's.
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            break
        if stat.S_ISDIR(status.st_mode) != stat.S_ISDIR(mode):
            break
        found.append((rank, path))
        if stat.S_ISDIR(mode) and _is_opaque(path):
            break
    return found


def _is_program(name: bytes) -> bool:
    return name == b"." or name.split(b"/", 2)[1] in _PROGRAMS


def _is_opaque(path: bytes) -> bool:
    return any(name in _OPAQUE and os.getxattr(path, name) == b"y" for name in os.listxattr(path))
