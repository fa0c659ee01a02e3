"""The hooks tree as names and fingerprints: what is in it now, without having it on disk.

It starts as the merge of the elements and changes as steps write into the hooks tree (extra-data.d may). Keys are made
from it, and the scripts of a phase are listed from it, also when every step so far came from the store.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import stat
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY, READ_BY_NAME, sees

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dibble.elements.model import HookTree

_SCRIPT_NAME = re.compile(r"[A-Za-z0-9_-]+")  # contract.md 1.8; a dot makes it data
# A line with the script's own place and something that lists a directory or goes through one.
# "${0##*/}" is its name alone.
_PLACE = rb"(?:\$0|\$\{0(?!##\*/\})|BASH_SOURCE|in_target\.d)"
_LISTING = rb"(?:/\*|\*/|\b(?:ls|find|cp|rsync|tar|run-parts)\b|\bfor\b)"
_LOOKS_AROUND = re.compile(
    rb"(?m)^[^#\n]*(?:" + _PLACE + rb"[^\n]*" + _LISTING + rb"|" + _LISTING + rb"[^\n]*" + _PLACE + rb")"
)
# A line that goes from the script's own place to the directory of all directories, and not on to a certain one.
_LOOKS_ABOVE = re.compile(rb"(?m)^[^#\n]*" + _PLACE + rb"[^\n]*/\.\.(?!/[A-Za-z0-9_-])")
# A use of the hooks tree that may lead to any of its directories; the commands in bin/ lead nowhere else.
_GOES_THROUGH_HOOKS = re.compile(
    rb"\$(?:TMP_HOOKS_PATH\b|\{TMP_HOOKS_PATH\})(?!/bin/)|['\"]TMP_HOOKS_PATH['\"]|dib_build\.image|\$\{?_LIB\b"
)
_NUMBER = re.compile(r"[0-9]+")
LIBRARY = ".dibble/lib/"
"""Where the manifest has the shell libraries (`_LIB`), which lie outside the hooks tree."""

Manifest = MappingProxyType[str, str]
"""Path relative to the hooks root → fingerprint."""


def fingerprint(path: Path, goal: Path | None = None) -> str:
    """What a file is: `x` when it can be executed, else `-`; a link's target; the digest of its content.

    `goal` is the file that a link leads to where that does not lie beside it, in another layer or element.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        goal = goal or (path if path.is_file() else None)
        try:
            mark = fingerprint(goal.resolve(strict=True)) if goal else "-"
        except (OSError, RuntimeError):  # until Python 3.12, links in a circle are the latter
            mark = "-"
        return f"{mark[0]}link:{os.readlink(path)}:{mark}"  # noqa: PTH115
    mark = "x" if status.st_mode & 0o111 else "-"
    return f"{mark}{_digest(str(path), status.st_ctime_ns, status.st_size)}"


def goal_of(name: str, target: str) -> str:
    """The path in the hooks tree to which a link called `name` leads; out of it when it begins with `..` or `/`."""
    return os.path.normpath(os.path.join(os.path.dirname(name), target))  # noqa: PTH118, PTH120


def link_goal(name: str, manifest: Mapping[str, str]) -> str | None:
    """The path in the hooks tree to which `name` leads, if it is a link to something in it."""
    mark = manifest.get(name, "")
    if not mark[1:].startswith("link:"):
        return None
    goal = goal_of(name, mark[1:].removeprefix("link:").rpartition(":")[0])
    return goal if goal in manifest else None


@functools.lru_cache(maxsize=4096)
def _digest(path: str, _changed: int, _size: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - the cache's key is a plain string
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(tree: HookTree, extra: Mapping[str, Path]) -> Manifest:
    """The manifest of the merged elements, with files of our own (`extra`: name → where it lies)."""
    files = {}
    for name, hook in tree.files.items():
        # A link may lead to a file that another element brings.
        goal = tree.files.get(goal_of(name, os.readlink(hook.path))) if hook.path.is_symlink() else None  # noqa: PTH115
        files[name] = fingerprint(hook.path, goal.path if goal else None)
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


def content_of(mark: str) -> str:
    """The sha256 of a regular file's content, from its fingerprint; empty for a link."""
    return mark[1:] if len(mark) == 65 and ":" not in mark else ""  # 64 hexadecimal digits behind the mark


def scripts(manifest: Manifest, phase: str) -> list[str]:
    """Names of a phase's scripts in the order in which they run: leading number, then byte order (contract.md 1.8)."""
    prefix = phase + "/"
    found = [
        name.removeprefix(prefix)
        for name, mark in manifest.items()
        if name.startswith(prefix) and _is_script(name.removeprefix(prefix), mark)
    ]
    return sorted(found, key=_order)


def _order(name: str) -> tuple[int, bytes]:
    number = _NUMBER.match(name)
    return (int(number.group()) if number else 0, os.fsencode(name))


def visible(manifest: Manifest, phase: str, script: str, text: bytes) -> dict[str, str]:
    """The part of the manifest that a script sees; nothing else is shown to it, so nothing else can change its result.

    That is what its phase sees (`elements/phases.py`) less the other scripts of its own phase, and for extra-data.d
    less the other phases. A script whose text shows that it looks at its own directory, names another script, or works
    on the hooks tree sees more: so elements that do such things run, and others are not run again for their sake.
    `text` is the script's, with those of the commands in bin/ that it names.
    """
    looks_around = _LOOKS_AROUND.search(text) is not None or f"{phase}/".encode() in text
    goes_through_hooks = _GOES_THROUGH_HOOKS.search(text) is not None
    works_on_hooks = any(word in text for word in (b"TMP_HOOKS_PATH", b"dib_build.image", b"$_LIB", b"${_LIB"))

    def is_shown(name: str) -> bool:
        top, slash, rest = name.partition("/")
        if not sees(phase, name):
            return False
        if name.startswith(LIBRARY):
            return b"_LIB" in text
        if top == phase:
            is_other_script = bool(slash) and rest != script and _is_script(rest, manifest[name])
            return not is_other_script or looks_around or works_on_hooks or os.fsencode(rest) in text
        if top in READ_BY_NAME:
            return goes_through_hooks or _LOOKS_ABOVE.search(text) is not None or _is_named(top.encode(), text)
        return top not in BY_DIRECTORY or works_on_hooks or f"{top}/".encode() in text or looks_around

    return {name: mark for name, mark in manifest.items() if is_shown(name)}


def _is_named(directory: bytes, text: bytes) -> bool:
    """Whether a script speaks of a directory of the hooks tree; /etc/init.d and the like are the target's."""
    return directory in text.replace(b"/etc/" + directory, b"")


def _is_script(name: str, mark: str) -> bool:
    return is_executable(mark) and _SCRIPT_NAME.fullmatch(name) is not None


def environment_files(manifest: Manifest) -> list[str]:
    """Names in environment.d that are sourced, in order: by leading number, those without one last; then by bytes.

    For numbers of two digits that is the order of the names, as in DIB (contract.md 1.8, D20); dib-run-parts does the
    same.
    """
    pattern = re.compile(r"[A-Za-z0-9_.-]+")
    names = [n.removeprefix("environment.d/") for n in manifest if n.startswith("environment.d/")]

    def order(name: str) -> tuple[float, bytes]:
        number = _NUMBER.match(name)
        return (int(number.group()) if number else math.inf, os.fsencode(name))

    return sorted((n for n in names if pattern.fullmatch(n)), key=order)


def digest(parts: Iterable[str]) -> str:
    """One digest over strings, none of which can run into the next."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()
