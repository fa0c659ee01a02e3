"""The part of the lists that a request can concern; that apt answers the same from it is in tests/build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.packages.apt_index import index_of, reachable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

MAIN = """\
Package: a
Version: 1
Depends: b (>= 1), c | d:any,
 virtual
Recommends: e
Provides: first

Package: b
Version: 1
Pre-Depends: base

Package: unused
Version: 1
Depends: e

Package: real
Version: 1
Provides: other, virtual (= 2)

Package: base
Version: 1
Essential: yes
Priority: required

Package: g++
Version: 1
Priority: important
"""
MORE = """\
Package: d
Version: 2

Package: e
Version: 1
Suggests: f

Package: f
Version: 1

Package: b
Version: 2
Depends: newer

Package: newer
Version: 1
"""


@pytest.fixture
def lists(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name, text in (("m_InRelease", "signed"), ("m_main_Packages", MAIN), ("m_more_Packages", MORE)):
        (folder / name).write_text(text)
    return sorted(folder.iterdir())


def names(
    lists: list[Path], *words: str, status: Path | None = None, settings: tuple[str, ...] = ()
) -> set[str] | None:
    """NAME=VERSION of each package in the lists for a request; None when these are the whole ones."""
    with reachable(lists, words, status, settings, lists[0].parent.parent / "index") as part:
        if part is None:
            return None
        assert {path.name for path in part.iterdir()} == {path.name for path in lists}
        found = set()
        for path in part.glob("*_Packages"):
            for stanza in filter(None, path.read_text().split("\n\n")):
                fields = dict(line.split(": ", 1) for line in stanza.splitlines() if line[0] != " ")
                found.add(f"{fields['Package']}={fields['Version']}")
        return found


NO_RECOMMENDS = ('APT::Install-Recommends "false";',)
WITHOUT = {"a=1", "b=1", "b=2", "newer=1", "base=1", "d=2", "real=1"}


def test_everything_that_a_dependency_may_lead_to_is_there(lists: list[Path]) -> None:
    assert names(lists, "a", settings=NO_RECOMMENDS) == WITHOUT
    assert names(lists, "a") == WITHOUT | {"e=1"}
    assert names(lists, "a", settings=('APT::Install-Suggests "1";',)) == WITHOUT | {"e=1", "f=1"}
    assert names(lists, "virtual", settings=NO_RECOMMENDS) == {"real=1", "base=1"}


def test_what_is_in_the_root_counts_as_asked_for(lists: list[Path], tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Package: d\nStatus: install ok installed\nVersion: 1\nDepends: f\n")
    assert names(lists, status=tmp_path / "status") == {"d=2", "f=1", "base=1"}


@pytest.mark.parametrize(
    ("word", "first"),
    [("d=2", "d=2"), ("d/stable", "d=2"), ("d:i386", "d=2"), ("d-", "d=2"), ("g++", "g++=1"), ("?essential", "base=1"),
     ("?priority(important)", "g++=1")],
)  # fmt: skip
def test_words_of_each_form_are_known(lists: list[Path], word: str, first: str) -> None:
    assert names(lists, word) == {first, "base=1"}


@pytest.mark.parametrize("word", ["d*", "^d", "?name(d)", "unknown", "./d.deb"])
def test_other_words_are_for_the_whole_lists(lists: list[Path], word: str) -> None:
    assert names(lists, "a", word) is None


def test_compressed_lists_are_not_looked_into(lists: list[Path]) -> None:
    lists[2].rename(lists[2].with_name("m_more_Packages.lz4"))
    assert names(sorted(lists[0].parent.iterdir()), "a") is None


def test_the_index_follows_the_lists(lists: list[Path]) -> None:
    assert names(lists, "d") == {"d=2", "base=1"}
    lists[2].write_text(MORE.replace("Version: 2", "Version: 3", 1) + "\n")
    assert names(lists, "d") == {"d=3", "base=1"}


def test_what_is_left_of_former_lists_goes(lists: list[Path], tmp_path: Path) -> None:
    assert names(lists, "d") is not None
    (old,) = (tmp_path / "index").iterdir()
    (tmp_path / "index" / ".lists-killed").mkdir()
    for path in (old, tmp_path / "index" / ".lists-killed"):
        os.utime(path, (1, 1))
    lists[2].write_text(MORE + "\n")
    assert names(lists, "d") is not None
    (new,) = (tmp_path / "index").iterdir()
    assert new != old


_NAMES = st.sampled_from([f"p{number}" for number in range(8)])
_PACKAGES = st.lists(
    st.tuples(_NAMES, st.lists(st.lists(_NAMES, min_size=1, max_size=3), max_size=3), st.lists(_NAMES, max_size=2)),
    max_size=12,
)


@given(packages=_PACKAGES, asked=st.lists(_NAMES, min_size=1, max_size=2))
def test_the_part_is_closed(
    tmp_path_factory: pytest.TempPathFactory, packages: list[tuple[str, list[list[str]], list[str]]], asked: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    stanzas = []
    for name, depends, provides in packages:
        rows = [f"Package: {name}", "Version: 1"]
        rows += [f"Depends: {', '.join(' | '.join(one) for one in depends)}"] if depends else []
        rows += [f"Provides: {', '.join(provides)}"] if provides else []
        stanzas.append("\n".join(rows) + "\n")
    path = folder / "m_Packages"
    path.write_text("\n".join(stanzas))
    with index_of([path], folder / "index") as index, reachable([path], asked, None, (), folder / "index") as part:
        assert index is not None
        if part is None:
            offered = {name for name, _, _ in packages} | {one for _, _, provides in packages for one in provides}
            assert not set(asked) <= offered
            return
        kept = {stanza.strip() for stanza in (part / "m_Packages").read_text().split("\n\n")} - {""}
    reached = set(asked)
    for _ in packages:
        for name, depends, provides in packages:
            if name in reached or reached & set(provides):
                reached |= {name, *(other for one in depends for other in one)}
    expected = {text.strip() for text, (name, _, _) in zip(stanzas, packages, strict=True) if name in reached}
    assert kept == expected
