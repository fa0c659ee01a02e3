"""Taking over the result of a costly step for a tree that differs only in what the step does not look at.

Making the initramfs depends on the whole tree in principle, and on a small part of it in fact. What it opened is noted
when it runs (`sandbox/opened.py`). For another tree the layers that the two trees do not share are gone through: as
long as no path in them that differs was opened, stands in a directory that was listed, or is named by a script that was
read, the result is the same and its layer serves for the new tree too.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dibble.run.freeze import is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dibble.sandbox.opened import Opened

_TEXT_LIMIT = 256 << 10  # bytes; scripts and settings are smaller
_WORD = re.compile(rb"[A-Za-z0-9_.+@:-]+")
TREE = "mnt"


@dataclass(frozen=True, slots=True)
class Trace:
    """What a step read of the target, by paths relative to it. `texts` are the opened files that are no binaries.

    `stack` are the overlay's directories that it ran on, topmost first, as in `State.stack`.
    """

    stack: tuple[str, ...]
    files: frozenset[str]
    folders: frozenset[str]
    texts: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        return {
            "stack": list(self.stack),
            "files": sorted(self.files),
            "folders": sorted(self.folders),
            "texts": list(self.texts),
        }


def trace_of(opened: Opened, root: Path, stack: Sequence[str]) -> Trace | None:
    """The trace of a step that has just run on `root`; None when not everything is known."""
    if not opened.complete:
        return None
    texts = sorted(path for path in opened.files if _is_text(root / path))
    return Trace(tuple(stack), frozenset(opened.files), frozenset(opened.folders), tuple(texts))


def trace_from(data: Any) -> Trace | None:  # JSON that was kept
    """The trace that was kept as `data`; None for anything else."""
    try:
        return Trace(tuple(data["stack"]), frozenset(data["files"]), frozenset(data["folders"]), tuple(data["texts"]))
    except (KeyError, TypeError):
        return None


def unaffected(trace: Trace, stack: Sequence[str], place: Callable[[str], Path], own: Sequence[str]) -> str | None:
    """None when a step with this trace would read the same from the tree of `stack`; else the first path that matters.

    `place` gives the directory of a stack's entry, `own` are the entries that the step itself has left.
    """
    old, new = list(trace.stack), list(stack)
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    before = [place(entry) / TREE for entry in trace.stack if not entry.startswith("@")]
    after = [place(entry) / TREE for entry in stack if not entry.startswith("@")]
    changes = sorted(set(_changes([*old, *new], place)))
    mine = set(_changes(own, place))
    words: frozenset[bytes] | None = None
    for path in changes:
        was, is_now = _look(before, path), _look(after, path)
        if was == is_now:
            continue
        if path in mine or path in trace.files:
            return path
        if (was is None) != (is_now is None) and path.rpartition("/")[0] in trace.folders:
            return path
        if words is None:
            words = _words(trace.texts, after)
        if os.fsencode(path.rpartition("/")[2]) in words:
            return path
    return None


def _changes(entries: Sequence[str], place: Callable[[str], Path]) -> Iterator[str]:
    """Every path in the target that layers have, whatever it is there; an opaque directory stands for all below it."""
    for entry in entries:
        if entry.startswith("@"):
            continue
        top = os.fspath(place(entry) / TREE)
        for folder, names, files in os.walk(top):
            shown = os.path.relpath(folder, top)
            prefix = "" if shown == "." else f"{shown}/"
            for name in (*names, *files):
                yield prefix + name


def _look(layers: Sequence[Path], path: str) -> tuple[object, ...] | None:
    """What stands at a path of the tree: type, mode, owner and content; None for nothing."""
    for layer in layers:
        found = layer / path
        try:
            status = found.lstat()
        except OSError:
            if _is_hidden(layer, path):
                return None
            continue
        if is_whiteout(status):
            return None
        kind = (status.st_mode, status.st_uid, status.st_gid)
        if stat.S_ISREG(status.st_mode):
            with found.open("rb") as file:
                return (*kind, hashlib.file_digest(file, "sha256").digest())
        return (*kind, str(found.readlink()) if stat.S_ISLNK(status.st_mode) else status.st_rdev)
    return None


def _is_hidden(layer: Path, path: str) -> bool:
    """Whether a layer hides what lower ones have at a path: a parent is removed, replaced, or opaque there."""
    parent = layer
    for part in path.split("/")[:-1]:
        parent = parent / part
        try:
            status = parent.lstat()
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return True
        try:
            if os.getxattr(parent, "user.overlay.opaque") == b"y":
                return True
        except OSError:
            continue
    return False


def _is_text(path: Path) -> bool:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _TEXT_LIMIT:
            return False
        with path.open("rb") as file:
            return b"\0" not in file.read(4096)
    except OSError:
        return False


def _words(texts: Sequence[str], layers: Sequence[Path]) -> frozenset[bytes]:
    """Every name that stands in the texts: of files that are looked for without being opened."""
    words: set[bytes] = set()
    for text in texts:
        for layer in layers:
            try:
                words.update(_WORD.findall((layer / text).read_bytes()))
            except OSError:
                continue
            break
    return frozenset(words)
