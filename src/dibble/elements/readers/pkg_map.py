"""`pkg-map`: from an element's logical package names to those of a distribution (contract.md 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dibble.elements.distros import family_of, release_names
from dibble.elements.readers.documents import Document, Table, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
