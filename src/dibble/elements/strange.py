"""Entries of an element that no build takes: named pipes and the like, and files where a directory is expected."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY, READ_BY_NAME

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

_DIRECTORIES = frozenset({*BY_DIRECTORY, *READ_BY_NAME, "bin", "environment.d"})
_KINDS: Mapping[int, str] = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link to nothing",
}


def strange(entry: os.DirEntry[str] | Path) -> str:
    """The end of a sentence about an entry that is neither file nor directory, nor leads to one; empty for others."""
    try:
        mode = entry.stat().st_mode
    except OSError:  # a link in a circle, or one to nothing
        mode = stat.S_IFLNK
    kind = _KINDS.get(stat.S_IFMT(mode))
    return f"is {kind}, which no build takes" if kind else ""


def misplaced(name: str) -> str:
    """The end of a sentence about a file right inside an element that has a directory's name; empty for others."""
    return "is a file, and a build expects a directory of that name" if name in _DIRECTORIES else ""
