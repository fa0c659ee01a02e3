"""The hooks tree as names and fingerprints: what is in it now, without having it on disk.

It starts as the merge of the elements and changes as steps write into the hooks tree (extra-data.d may). Keys are made
from it, and the scripts of a phase are listed from it, also when every step so far came from the store.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.elements.phases import sees

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dibble.elements.model import HookTree

_SCRIPT_NAME = re.compile(r"[A-Za-z0-9_-]+")  # contract.md 1.8; a dot makes it data
_NUMBER = re.compile(r"[0-9]+")

Manifest = MappingProxyType[str, str]
"""Path relative to the hooks root → fingerprint."""


def fingerprint(path: Path) -> str:
    """What a file is: `x` when it can be executed, else `-`; a link's target; the digest of its content."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        try:
            goal = fingerprint(path.resolve(strict=True)) if path.is_file() else "-"
        except OSError:
            goal = "-"
        return f"{goal[0]}link:{os.readlink(path)}:{goal}"  # noqa: PTH115
    mark = "x" if status.st_mode & 0o111 else "-"
    return f"{mark}{_digest(str(path), status.st_mtime_ns, status.st_size)}"


@functools.lru_cache(maxsize=4096)
def _digest(path: str, _changed: int, _size: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - the cache's key is a plain string
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(tree: HookTree, extra: Mapping[str, Path]) -> Manifest:
    """The manifest of the merged elements, with files of our own (`extra`: name → where it lies)."""
    files = {name: fingerprint(hook.path) for name, hook in tree.files.items()}
    files.update({name: fingerprint(path) for name, path in extra.items()})
    return MappingProxyType(dict(sorted(files.items())))


def changed(manifest: Manifest, changes: Mapping[str, str | None]) -> Manifest:
    """The manifest after a step; None removes the path, and all below it when it was a directory."""
    if not changes:
        return manifest
    files = dict(manifest)
    for name, mark in changes.items():
        if mark is None:
            for path in [p for p in files if p == name or p.startswith(name + "/")]:
                del files[path]
        else:
            files[name] = mark
    return MappingProxyType(dict(sorted(files.items())))


def is_executable(mark: str) -> bool:
    return mark.startswith("x")


def scripts(manifest: Manifest, phase: str) -> list[str]:
    """Names of a phase's scripts in the order in which they run: leading number, then byte order (contract.md 1.8)."""
    prefix = phase + "/"
    found = [
        name.removeprefix(prefix)
        for name, mark in manifest.items()
        if name.startswith(prefix) and is_executable(mark) and _SCRIPT_NAME.fullmatch(name.removeprefix(prefix))
    ]
    return sorted(found, key=_order)


def _order(name: str) -> tuple[int, bytes]:
    number = _NUMBER.match(name)
    return (int(number.group()) if number else 0, os.fsencode(name))


def visible(manifest: Manifest, phase: str) -> dict[str, str]:
    """The part of the manifest that a phase sees."""
    return {name: mark for name, mark in manifest.items() if sees(phase, name)}


def environment_files(manifest: Manifest) -> list[str]:
    """Names in environment.d that are sourced, in byte order (contract.md 1.8)."""
    pattern = re.compile(r"[A-Za-z0-9_.-]+")
    names = [n.removeprefix("environment.d/") for n in manifest if n.startswith("environment.d/")]
    return sorted((n for n in names if pattern.fullmatch(n)), key=os.fsencode)


def digest(parts: Iterable[str]) -> str:
    """One digest over strings, none of which can run into the next."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()
