"""The packages of Debian that a stand-in is made of: which, fetched, and unpacked in the store like any others.

A test that wants files of another architecture takes them from here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.events import Events
from dibble.packages.base import Download
from dibble.packages.debian_archive import DebianArchive
from dibble.packages.fetch import fetch_all
from dibble.packages.unpack.deb import unpack_all
from dibble.sandbox.tools import default_mirrors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from dibble.packages.packages_index import PackagesIndex, Relation, Stanza
    from dibble.store.places import Store

SUITE = "trixie"


@dataclass(frozen=True, slots=True)
class Deb:
    """`place` holds its files in `root` and its control files in `control`; `needs` are names of other debs."""

    name: str
    version: str
    arch: str
    sha256: str
    needs: tuple[str, ...]
    place: Path

    @property
    def conffiles(self) -> set[str]:
        file = self.place / "control/conffiles"
        return set(file.read_text().split()) if file.exists() else set()


def index_of(store: Store, arch: str, suite: str = SUITE) -> PackagesIndex:
    """The verified index of the suite."""
    return DebianArchive(default_mirrors(), suite, arch, blobs=store.blobs, events=Events()).packages()


def chosen(index: PackagesIndex, roots: Sequence[str], left_out: Collection[str]) -> dict[str, tuple[str, ...]]:
    """`roots` and what they need, each with its own needs, without what no RPM system has."""
    needs: dict[str, tuple[str, ...]] = {}
    have = set(roots)
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        stanza = index.get(name)
        assert stanza is not None, f"{SUITE} has no package {name}"
        found: dict[str, None] = {}
        for alternatives in stanza.dependencies():
            one = _one_of(index, alternatives, have, left_out)
            if one and one != name:
                found[one] = None
                if one not in have:
                    have.add(one)
                    waiting.append(one)
        needs[name] = tuple(found)
    return needs


def _one_of(
    index: PackagesIndex, alternatives: Iterable[Relation], have: Collection[str], left_out: Collection[str]
) -> str | None:
    """The package that stands for a dependency: one that is there, else the first; None where that is left out."""
    candidates: list[str] = []
    for relation in alternatives:
        candidates += [relation.name] if index.get(relation.name) else []
        candidates += [stanza.name for stanza, _ in index.providers(relation.name)]
    if present := [name for name in candidates if name in have]:
        return present[0]
    return None if not candidates or candidates[0] in left_out else candidates[0]


def fetched(store: Store, arch: str, roots: Sequence[str], left_out: Collection[str]) -> dict[str, Deb]:
    """The packages by name, unpacked. For use in the namespace, as uid 0."""
    index = index_of(store, arch)
    needs = chosen(index, roots, left_out)
    stanzas = {name: stanza for name in sorted(needs) if (stanza := index.get(name))}
    places = _unpacked(store, stanzas.values())
    return {
        name: Deb(
            name, stanza["Version"], stanza["Architecture"], stanza["SHA256"], needs[name], places[stanza["SHA256"]]
        )
        for name, stanza in stanzas.items()
    }


def files_of(store: Store, arch: str, name: str, suite: str) -> Path:
    """The files of one package, without those of what it needs. For use in the namespace, as uid 0."""
    stanza = index_of(store, arch, suite).get(name)
    assert stanza is not None, f"{suite} has no package {name} for {arch}"
    return _unpacked(store, [stanza])[stanza["SHA256"]] / "root"


def _unpacked(store: Store, stanzas: Iterable[Stanza]) -> dict[str, Path]:
    """Where each is in the store, by sha256."""
    mirrors = default_mirrors()
    downloads = [
        Download(
            tuple(f"{mirror}/{stanza['Filename']}" for mirror in mirrors),
            stanza["SHA256"],
            int(stanza["Size"]),
            stanza.name,
        )
        for stanza in stanzas
    ]
    return unpack_all(fetch_all(downloads, store.blobs, Events()), store.packages, Events())
