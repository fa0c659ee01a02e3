"""`pkg-map`: from an element's logical package names to those of a distribution (contract.md 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from dibble.elements.distros import family_of, release_names
from dibble.elements.readers.documents import Document, Table, Value, read_document, read_json
from dibble.events import Note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.elements.model import Element

# Section → how many names of distributions, releases or families stand between it and the packages.
SECTIONS = {"release": 2, "distro": 1, "family": 1, "default": 0}


@dataclass(frozen=True, slots=True)
class PackageMap:
    """A map as read. Sections: `release` distro → release → name, `distro` and `family` → name, `default` name."""

    file: Path
    sections: dict[str, Any]  # JSON; `lookup` checks what it meets

    def lookup(self, name: str, distro: str, release: str = "") -> str | None:
        """The distribution's package names for `name`, separated by blanks; empty: none is needed; None: unmapped.

        The most particular section wins: release, distro, family, default. Raises ElementError for a value that is
        not a text, or a section that is not a map.
        """
        for table in self._tables(distro, release):
            value = table.get(name)
            if isinstance(value, str):
                return value
            if name in table:
                self._wrong(f'the value of "{name}" is not a text')
        return None

    def _tables(self, distro: str, release: str) -> Iterator[dict[str, Any]]:
        for spelling in release_names(release):
            yield self._section("release", distro, spelling)
        yield self._section("distro", distro)
        family = family_of(distro)
        if family:
            yield self._section("family", family)
        yield self._section("default")

    def _section(self, *keys: str) -> dict[str, Any]:
        table = self.sections
        for depth, key in enumerate(keys):
            below = table.get(key, {})
            if not isinstance(below, dict):
                self._wrong(f"{' → '.join(keys[: depth + 1])} is not a map")
            table = below
        return table

    def _wrong(self, message: str) -> None:
        Document(self.file, "", Table(())).fail(message)


def read_pkg_map(file: Path) -> PackageMap:
    """Read a map. Raises ElementError with the place of a mistake."""
    sections = read_json(file)
    if not isinstance(sections, dict):
        Document(file, "", Table(())).fail("a pkg-map is a map of sections")
    return PackageMap(file, sections)


def check(element: Element) -> tuple[Note, ...]:
    """Warnings about an element's map. Raises ElementError, with file and line, for what cannot be used as one."""
    file = element.path / "pkg-map"
    if not file.is_file():
        return ()
    plain = read_json(file, element.name)
    document = read_document(file, element.name)
    notes = []
    for key in document.repeated():
        text = f'{file}:{key.line}, element {element.name}: "{key.text}" stands twice in a map, and the last one counts'
        notes.append(Note(text=text, level="warning"))
    for section, value in document.table(document.root, "a pkg-map").entries:
        if section.text in SECTIONS:
            _check_section(document, value, plain.get(section.text), SECTIONS[section.text], section.text)
            continue
        near = get_close_matches(section.text, SECTIONS, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(SECTIONS)}"
        text = f'{file}:{section.line}, element {element.name}: nothing reads the section "{section.text}"; {meant}'
        notes.append(Note(text=text, level="warning"))
    return tuple(notes)


def _check_section(document: Document, value: Value, plain: Any, depth: int, path: str) -> None:
    """`plain` is the same as JSON has it, which tells a text from a number."""
    for name, below in document.table(value, path).entries:
        if depth:
            _check_section(document, below, plain.get(name.text), depth - 1, f"{path} → {name.text}")
        elif not isinstance(plain.get(name.text, ""), str):
            document.fail(f'the value of "{name.text}" is not a text', below)
