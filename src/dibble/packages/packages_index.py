"""A Debian `Packages` file: found by name without parsing it, and what a package needs with it.

Made for the tools tree. A target's packages are resolved by its own package manager, never here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dibble.errors import NoSuchPackage, PackageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_NAME = re.compile(rb"^Package: (\S+)$", re.MULTILINE)
_PROVIDES = re.compile(rb"^Provides: (.+)$", re.MULTILINE)
_FIELD = re.compile(r"^([!-9;-~]+):[ \t]*(.*(?:\n[ \t].*)*)$", re.MULTILINE)
# deb-control(5), "Syntax of package relationships"; architecture lists do not occur in binary packages
_RELATION = re.compile(r"^([a-z0-9][a-z0-9+.-]+)(?::[a-z0-9-]+)?(?:\s*\(\s*(<<|<=|=|>=|>>)\s*([^\s)]+)\s*\))?$")
_PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True, slots=True)
class Relation:
    """One alternative of a dependency. `operator` is one of "<<", "<=", "=", ">=", ">>", or empty for any version."""

    name: str
    operator: str = ""
    version: str = ""

    def admits(self, version: str) -> bool:
        if not self.operator:
            return True
        from debian.debian_support import version_compare

        order = version_compare(version, self.version)
        return {"<<": order < 0, "<=": order <= 0, "=": order == 0, ">=": order >= 0, ">>": order > 0}[self.operator]


@dataclass(frozen=True, slots=True)
class Stanza:
    """One package of the index; `fields` as in the file, continuation lines included."""

    fields: Mapping[str, str]

    def __getitem__(self, field: str) -> str:
        try:
            return self.fields[field]
        except KeyError as error:
            name = self.fields.get("Package", "?")
            raise PackageError(f"package {name} has no field {field} in the archive's index") from error

    @property
    def name(self) -> str:
        return self["Package"]

    def dependencies(self) -> list[tuple[Relation, ...]]:
        """Each with its alternatives, best first."""
        return [
            alternatives
            for field in ("Pre-Depends", "Depends")
            for alternatives in relations(self.fields.get(field, ""))
        ]


def relations(text: str) -> list[tuple[Relation, ...]]:
    """A relationship field as a list of alternatives. Raises PackageError for what is not one."""
    return [tuple(_relation(word) for word in clause.split("|")) for clause in text.split(",") if clause.strip()]


def _relation(word: str) -> Relation:
    match = _RELATION.match(word.strip())
    if not match:
        raise PackageError(f'"{word.strip()}" is not a package relationship')
    return Relation(match[1], match[2] or "", match[3] or "")


class PackagesIndex:
    """A `Packages` file held as text: some 60,000 packages are found in 0.2 s and parsed one by one when asked for."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._offsets: dict[bytes, int] = {}
        for match in _NAME.finditer(text):
            name = match[1]
            if name in self._offsets and not self._newer(match.start(), self._offsets[name]):
                continue
            self._offsets[name] = match.start()

    def __len__(self) -> int:
        return len(self._offsets)

    def get(self, name: str) -> Stanza | None:
        """The package, or None; of several versions the newest."""
        offset = self._offsets.get(name.encode())
        return None if offset is None else self._stanza(offset)

    def providers(self, name: str) -> list[tuple[Stanza, str]]:
        """Who provides the name, most important first, then by name; each with the version provided, or ""."""
        found = [(self._stanza(offset), version) for offset, version in self._provided.get(name, ())]
        return sorted(found, key=lambda one: (_rank(one[0]), one[0].name))

    @cached_property
    def _provided(self) -> dict[str, list[tuple[int, str]]]:
        """Virtual name → (offset of the provider, version)."""
        offsets = sorted(self._offsets.values())
        provided: dict[str, list[tuple[int, str]]] = {}
        for match in _PROVIDES.finditer(self._text):
            offset = offsets[bisect_right(offsets, match.start()) - 1]
            for alternatives in relations(match[1].decode()):
                provided.setdefault(alternatives[0].name, []).append((offset, alternatives[0].version))
        return provided

    def _stanza(self, offset: int) -> Stanza:
        end = self._text.find(b"\n\n", offset)
        return Stanza(dict(_FIELD.findall(self._text[offset : end if end >= 0 else None].decode())))

    def _newer(self, offset: int, than: int) -> bool:
        version = self._stanza(offset)["Version"]
        return Relation("", ">>", self._stanza(than)["Version"]).admits(version)


def _rank(stanza: Stanza) -> int:
    priority = stanza.fields.get("Priority", "optional")
    return _PRIORITIES.index(priority) if priority in _PRIORITIES else len(_PRIORITIES)


def closure(index: PackagesIndex, roots: Sequence[str], present: Collection[str] = ()) -> list[Stanza]:
    """`roots` and all they depend on, sorted by name, without the packages named in `present`.

    Of alternatives, one that is chosen already counts, else the first that exists; of a virtual package's providers one
    that is chosen, else the first. Recommends, Conflicts and Breaks are not looked at: in one release that is mostly
    right, and the result is only ever a set of programs to unpack. Raises PackageError for a name nothing satisfies.
    """
    chosen: dict[str, Stanza] = {}
    for name in present:
        stanza = index.get(name)
        if stanza:
            chosen[name] = stanza
    waiting: list[tuple[Stanza, str]] = []
    for root in roots:
        stanza = index.get(root)
        if stanza is None:
            raise NoSuchPackage(f"the archive has no package {root}", hint="is it called otherwise in this release?")
        if root not in chosen:
            chosen[root] = stanza
            waiting.append((stanza, root))
    added = {stanza.name for stanza, _ in waiting}
    while waiting:
        stanza, path = waiting.pop(0)
        for alternatives in stanza.dependencies():
            found = _satisfied(index, alternatives, chosen)
            if found is None:
                wanted = " | ".join(f"{one.name} {one.operator}{one.version}".strip() for one in alternatives)
                raise PackageError(f"{path} depends on {wanted}, which the archive does not have")
            if found.name not in chosen:
                chosen[found.name] = found
                added.add(found.name)
                waiting.append((found, f"{path} → {found.name}"))
    return [chosen[name] for name in sorted(added)]


def _satisfied(index: PackagesIndex, alternatives: Iterable[Relation], chosen: Mapping[str, Stanza]) -> Stanza | None:
    """The package that stands for a dependency; one of `chosen` where possible."""
    candidates: list[Stanza] = []
    for relation in alternatives:
        real = index.get(relation.name)
        if real and relation.admits(real["Version"]):
            candidates.append(real)
        # A virtual package without a version satisfies only dependencies without one (Debian policy 7.5).
        candidates += [
            stanza
            for stanza, version in index.providers(relation.name)
            if not relation.operator or (version and relation.admits(version))
        ]
    return next((one for one in candidates if one.name in chosen), candidates[0] if candidates else None)
