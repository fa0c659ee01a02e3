"""Which questions to apt are the same; that kept answers serve builds is in tests/build/test_apt_engine.py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from dibble.packages.apt_answers import AptAnswers, key_of
from dibble.packages.apt_sources import SourceSet
from dibble.packages.debian_sources import Source

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

STATUS = """\
Package: a
Status: install ok installed
Architecture: all
Version: 1
Section: misc
Depends: b,
 c

Package: b
Status: install ok installed
Architecture: amd64
Version: 2
"""
SOURCES = SourceSet("amd64", (Source(("http://m/debian/",), ("trixie", "trixie-updates"), ("main", "contrib")),))


@dataclass
class State:
    """What a key needs of an AptState."""

    sources: SourceSet
    files: dict[tuple[str, str], Path] = field(default_factory=dict)

    def release_files(self) -> dict[tuple[str, str], Path]:
        return self.files


@dataclass
class Question:
    """A question whose parts can be changed one by one."""

    directory: Path
    state: State
    program: str = "apt 3.0"
    words: tuple[str, ...] = ("install", "x")
    status: str = STATUS
    marks: str = ""

    def key(self) -> str | None:
        status, marks = self.directory / "status", self.directory / "extended_states"
        status.write_text(self.status)
        marks.write_text(self.marks)
        return key_of(self.program, self.state, self.words, status, marks)  # type: ignore[arg-type]


@pytest.fixture
def question(tmp_path: Path) -> Question:
    files = {}
    for suite in ("trixie", "trixie-updates"):
        files["http://m/debian", suite] = tmp_path / suite
        (tmp_path / suite).write_text(suite)
    return Question(tmp_path, State(SOURCES, files))


@pytest.mark.parametrize(
    "change",
    [
        {"program": "apt 3.1"},
        {"words": ("remove", "x")},
        {"words": ("install", "x", "y")},
        {"status": STATUS.replace("Version: 2", "Version: 3")},
        {"status": STATUS.replace("ok installed", "ok half-configured", 1)},
        {"status": STATUS.replace("install ok", "hold ok", 1)},
        {"status": STATUS.replace(" c\n", " d\n")},
        {"status": STATUS + "\nPackage: c\nStatus: install ok installed\nVersion: 1\n"},
        {"marks": "Package: a\nArchitecture: amd64\nAuto-Installed: 1\n"},
    ],
)
def test_another_question_has_another_key(question: Question, change: dict[str, str]) -> None:
    assert question.key() is not None
    assert replace(question, **change).key() not in (question.key(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "i386"},
        {"foreign": ("i386",)},
        {"preferences": (("pin", b"Package: a\nPin: version 1\nPin-Priority: 1001\n"),)},
        {"settings": ('APT::Install-Recommends "false";',)},
        {"settings": ('APT::Default-Release "trixie";',)},
        {"settings": ('APT::Solver "3.0";',)},
        {"sources": (replace(SOURCES.sources[0], components=("main",)),)},
        {"sources": (replace(SOURCES.sources[0], suites=("trixie-updates", "trixie")),)},
        {"sources": (replace(SOURCES.sources[0], fields=(("Architectures", "i386"),)),)},
    ],
)
def test_other_sources_have_another_key(question: Question, change: dict[str, object]) -> None:
    state = State(replace(SOURCES, **change), question.state.files)  # type: ignore[arg-type]
    assert replace(question, state=state).key() not in (question.key(), None)


def test_newer_lists_have_another_key(question: Question) -> None:
    before = question.key()
    (question.directory / "trixie").write_text("newer")
    assert question.key() not in (before, None)


def test_what_decides_nothing_is_left_out(question: Question) -> None:
    before = question.key()
    source = SOURCES.sources[0]
    apart = tuple(
        replace(source, uris=("http://m/debian",), suites=(suite,), signed_by="debian.gpg") for suite in source.suites
    )
    same = replace(
        SOURCES,
        sources=apart,
        keys=(("debian.gpg", b"key"),),
        settings=('APT::Install-Recommends "1";', 'Acquire::http::Proxy "http://p:3128";'),
    )
    folded = "\n\n".join(reversed(STATUS.replace("Section: misc", "Section: net").split("\n\n")))
    other = replace(question, state=State(same, question.state.files), status=folded.replace("b,\n c", "b, c"))
    assert other.key() == before


def test_what_cannot_be_told_has_no_key(question: Question, tmp_path: Path) -> None:
    assert replace(question, words=("install", "/tmp/a.deb")).key() is None
    local = replace(SOURCES, sources=(Source(("file:/srv/debs",), ("./",)),))
    assert replace(question, state=State(local, {("file:/srv/debs", "./"): tmp_path / "trixie"})).key() is None
    question.state.files.popitem()
    assert question.key() is None


def test_answers_are_kept_whole(tmp_path: Path) -> None:
    answers = AptAnswers(tmp_path / "answers")
    assert answers.get("key") is None
    answers.put("key", "")
    answers.put("other", "é\udcff\n")
    assert answers.get("key") == ""
    assert AptAnswers(tmp_path / "answers").get("other") == "é\udcff\n"
