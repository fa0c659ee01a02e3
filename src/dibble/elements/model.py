"""The values that other rooms see of the elements: what is in the set, in which order, and the merged hook tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.events import Note


@dataclass(frozen=True, slots=True)
class Element:
    """An element: `name` is that of its entry on the search path, `path` its real directory (links resolved)."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class HookFile:
    """A file of the hook tree.

    `name` is its path relative to the hooks root, the same text as its key in `HookTree.files` (`install.d/01-x`).
    `path` is where it is read from and may be a symbolic link, which stays one. `executable` tells whether it is a
    regular file, or leads to one, that somebody may execute.
    """

    name: str
    path: Path
    element: str
    executable: bool


@dataclass(frozen=True, slots=True)
class HookTree:
    """What stands under TMP_HOOKS_PATH: `files` by path relative to it, sorted.

    `directories` holds the permission bits of every directory, empty ones too, sorted. `notes` is what the user
    should know about the merge.
    """

    files: Mapping[str, HookFile]
    directories: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class ElementSet:
    """The elements of one image: each stands behind those that it depends on. `requested` are the words asked for."""

    elements: tuple[Element, ...]
    requested: tuple[str, ...]
    hooks: HookTree
    notes: tuple[Note, ...] = ()
