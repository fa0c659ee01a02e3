"""Which elements there are: the search path, and the plain lists (`element-deps`, `element-provides`) inside them.

An element may also hold `element-unusable`, the reason why it is there in name only: its distribution is dead, or it
never worked. Resolving refuses it with that reason; docs/differences.md lists such elements.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.model import Element
from dibble.elements.readers.documents import read_text
from dibble.errors import ElementError, Where
from dibble.events import Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UNUSABLE = "element-unusable"
TOOLS = "element-tools"
BUILT_IN_ELEMENTS = Path(__file__).resolve().parent.parent / "catalogue" / "elements"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All elements of a search path, by name, sorted. `hidden` holds, by name, the directories that lost to another."""

    elements: Mapping[str, Element]
    hidden: Mapping[str, tuple[Path, ...]]

    def notes(self, elements: Iterable[Element]) -> tuple[Note, ...]:
        """A warning for each of these elements that hides another of the same name."""
        return tuple(
            Note(text=f"element {element.name}: {element.path} hides {loser}", level="warning")
            for element in elements
            for loser in self.hidden.get(element.name, ())
        )


@dataclass(frozen=True, slots=True)
class ListedName:
    """A name in `element-deps`, `element-provides` or `element-tools`, and where it stands. Lines count from 1."""

    name: str
    file: Path
    line: int


def search_path(environment: Mapping[str, str], cwd: Path | None = None) -> tuple[Path, ...]:
    """The directories of ELEMENTS_PATH, made absolute, then the catalogue that dibble ships.

    Raises ElementError for an entry that is not a directory, the empty entry of a stray colon too.
    """
    given = environment.get("ELEMENTS_PATH", "")
    entries = given.split(":") if given else []
    return (*(_checked_entry(entry, cwd or Path.cwd(), given) for entry in entries), BUILT_IN_ELEMENTS)


def _checked_entry(entry: str, cwd: Path, whole: str) -> Path:
    if not entry:
        raise ElementError(
            f'ELEMENTS_PATH has an empty entry: "{whole}"',
            hint="take out the colon at its start, at its end or doubled",
        )
    path = cwd / entry
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise ElementError(
            f'the entry "{entry}" of ELEMENTS_PATH {what}',
            hint="name the directory that holds the elements, or take the entry out",
        )
    return path


def find_elements(path: Sequence[Path]) -> Catalogue:
    """The elements of all directories in `path`; where two have one name, the earlier directory wins.

    An element's name is that of its directory entry, also where this is a link. The same directory on the path twice
    counts once. Raises ElementError for an entry of `path` that cannot be listed.
    """
    found: dict[str, Element] = {}
    hidden: dict[str, tuple[Path, ...]] = {}
    for directory in path:
        for name in _element_names(directory):
            element = Element(name, Path(os.path.realpath(directory / name)))
            winner = found.setdefault(name, element)
            if winner.path != element.path:
                hidden[name] = (*hidden.get(name, ()), element.path)
    return Catalogue({name: found[name] for name in sorted(found)}, hidden)


def _element_names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.name != "__pycache__" and entry.is_dir()
            )
    except OSError as error:
        raise ElementError(
            f"the element directory {directory} cannot be listed: {error.strerror}",
            hint="mend it, or take it out of ELEMENTS_PATH",
        ) from error


def depends_of(element: Element) -> tuple[ListedName, ...]:
    """The names in the element's `element-deps`, as they stand; none when there is no such file."""
    return _listed_names(element, "element-deps")


def provides_of(element: Element) -> tuple[ListedName, ...]:
    """The virtual names in the element's `element-provides`; none when there is no such file."""
    return _listed_names(element, "element-provides")


def tools_of(element: Element) -> tuple[ListedName, ...]:
    """The groups of tools in the element's `element-tools` that its outside scripts run; none without such a file."""
    return _listed_names(element, TOOLS)


def unusable_because(element: Element) -> str:
    """The sentence in the element's `element-unusable`, on one line without the stop; empty for an element of use.

    Raises ElementError for a file that cannot be read or says nothing.
    """
    file = element.path / UNUSABLE
    if not os.path.lexists(file):
        return ""
    text = read_text(file, element.name)
    reason = " ".join(text.split()).rstrip(".")
    if not reason:
        raise ElementError(
            f"{UNUSABLE} gives no reason",
            hint="write into it why the element cannot be used, or remove it",
            where=Where(file=file, line=1, element=element.name),
        )
    return reason


def _listed_names(element: Element, file_name: str) -> tuple[ListedName, ...]:
    """One name a line; blank lines and `#` to the end of a line are ignored. Raises ElementError for two on a line."""
    file = element.path / file_name
    if not os.path.lexists(file):
        return ()
    text = read_text(file, element.name)
    names: list[ListedName] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            raise ElementError(
                f"{file_name} has more than one name on a line: {' '.join(words)}",
                hint="write one name per line",
                where=Where(file=file, line=number, element=element.name),
            )
        names.extend(ListedName(word, file, number) for word in words)
    return tuple(names)
