"""What apt answered before: the same question about the same packages and repositories is not asked twice.

    STATE/answers/KEY    what apt printed

A question costs half a second, most of it for opening apt's caches. Its key is made of all that the answer depends on:
the program, the words, what the sources offer (by the sha256 of each signed file) and in what order, pins, settings,
and of each package in the root its version, state, marks and relations. Where something cannot be told, as with a
repository that has no such file, there is no key, and apt is asked. So a plan, the work ahead of a build and the build
itself share their answers, though one has made up the status file that another finds in the root.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from dibble.packages.deb822 import paragraphs
from dibble.store.places import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from dibble.packages.apt_state import AptState

_DECISIVE = {
    "apt::install-recommends": "true",
    "apt::install-suggests": "false",
    "apt::default-release": "",
    "apt::solver": "",
    "apt::get::allowunauthenticated": "false",
    "acquire::allowinsecurerepositories": "false",
}
"""Settings on which an answer depends, among those that a `SourceSet` has, with their defaults (apt.conf(5))."""
_TRUE, _FALSE = ("1", "yes", "true", "with", "on", "enable"), ("0", "no", "false", "without", "off", "disable")

_FIELDS = (
    "Package", "Architecture", "Version", "Status", "Essential", "Protected", "Important", "Multi-Arch",
    "Pre-Depends", "Depends", "Recommends", "Suggests", "Conflicts", "Breaks", "Replaces", "Provides",
)  # fmt: skip
"""Of an installed package, what apt decides by. The archive may override Section and Priority."""


class AptAnswers:
    """The answers kept in one directory. Reading what is not there or unreadable gives None; not being able to write
    is no fault."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, key: str) -> str | None:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            file = self._directory / key
            text = file.read_text("utf-8", "surrogateescape")
            with contextlib.suppress(OSError):
                os.utime(file)  # gc goes by it
            return text
        return None

    def put(self, key: str, answer: str) -> None:
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self._directory / key, answer.encode("utf-8", "surrogateescape"))


def key_of(
    program: str, state: AptState, words: Sequence[str], status: Path | None, extended: Path | None
) -> str | None:
    """The name of a question to the apt `program` names; None where the answer may depend on more than can be seen.

    The lists must not change meanwhile (`AptState.reading`).
    """
    sources = state.sources
    offers = _offers(state)
    if offers is None or any(word.startswith(("/", "./", "file:")) for word in words):
        return None
    parts = [program, *words, "", sources.arch, *sources.foreign, "", *offers, "", *_settings(sources.settings)]
    parts += [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sources.preferences]
    parts += ["", *_packages(status), "", *_marks(extended)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _offers(state: AptState) -> list[str] | None:
    """What the sources offer, in their order: keys and the way to write a source down do not count."""
    files = state.release_files()
    digests = {place: hashlib.sha256(path.read_bytes()).hexdigest() for place, path in files.items()}
    rows: dict[str, None] = {}
    for source in state.sources.sources:
        if source.is_local:
            return None
        fields = sorted(f"{name}={value}" for name, value in source.fields)
        for uri in source.uris:
            for suite in source.suites:
                digest = digests.get((uri.rstrip("/"), suite))
                if digest is None:
                    return None
                for component in source.components or ("",):
                    rows[" ".join((uri.rstrip("/"), suite, component, digest, *fields))] = None
    return list(rows)


def _settings(lines: Iterable[str]) -> list[str]:
    values = dict(_DECISIVE)
    for line in lines:
        name, _, value = line.partition(" ")
        plain = value.strip(' ";')
        word = plain.lower()
        known = name.lower()
        if known in values:
            values[known] = "true" if word in _TRUE else "false" if word in _FALSE else plain
        elif known.startswith(("apt::build-profiles", "apt::default-release", "apt::solver")):
            values[known + plain] = plain  # a list, or what this does not know
    return [f"{name}={value}" for name, value in sorted(values.items())]


def _packages(status: Path | None) -> Iterator[str]:
    """A row for each package in a status file, sorted."""
    if status is None:
        return
    rows = []
    for paragraph in paragraphs(status.read_bytes(), status):
        rows.append("\t".join(" ".join(paragraph.get(name).split()) for name in _FIELDS))
    yield from sorted(rows)


def _marks(extended: Path | None) -> Iterator[str]:
    if extended is None or not extended.exists():
        return
    rows = [
        f"{paragraph.get('Package')} {paragraph.get('Architecture')}"
        for paragraph in paragraphs(extended.read_bytes(), extended)
        if paragraph.get("Auto-Installed") == "1"
    ]
    yield from sorted(rows)
