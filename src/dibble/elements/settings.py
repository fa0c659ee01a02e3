"""The variables that an element takes, with their defaults: found in its scripts, explained by its README.

A default is what bash takes where the variable is not set: `${NAME:-default}`. What `environment.d` says counts before
what other scripts say, since it is what they see.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dibble.elements.phases import PHASES
from dibble.elements.readme import documented_variables, readme_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.elements.model import Element

ENVIRONMENT = "environment.d"
SEPARATOR = " | "
_DIRECTORIES = (ENVIRONMENT, *(phase.directory for phase in PHASES), "bin")
_EXPANSION = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):?[-=]")
_EXPORT = re.compile(r"^\s*export\s+([A-Z][A-Z0-9_]*)=(\S.*?)\s*$")
OF_THE_BUILD = frozenset(
    {
        "DIB_ARGS",
        "DIB_CHECKSUM",
        "DIB_DEBUG_TRACE",
        "DIB_ENV",
        "DIB_IMAGE_CACHE",
        "DIB_LOCKFILES",
        "DIB_OFFLINE",
        "DIB_PYTHON_EXEC",
        "DIB_ROOT_LABEL",
    }
)
"""What options of the build stand behind, so that it is no setting of an element."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable. `default` is bash text, None where unset means unset; `about` is a sentence of the README or empty.

    Where a file has several defaults, for different machines perhaps, they are separated by ` | `. `file` and `line`
    (from 1) tell where the first one stands.
    """

    name: str
    default: str | None = None
    about: str = ""
    file: Path | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """`taken` from whoever builds, those of the README first; `given` is what the element tells all others."""

    taken: tuple[Setting, ...]
    given: tuple[Setting, ...]


def settings_of(element: Element) -> Settings:
    """The element's variables. Files that are no text count as empty. Raises OSError."""
    defaults: dict[str, Setting] = {}
    given: dict[str, Setting] = {}
    for file, text in _texts(element):
        for setting in _defaults_in(text, file):
            before = defaults.setdefault(setting.name, setting)
            if before.file == file and before.default and setting.default not in before.default.split(SEPARATOR):
                defaults[setting.name] = replace(before, default=f"{before.default}{SEPARATOR}{setting.default}")
        if file.parent.name == ENVIRONMENT:
            for setting in _exports_in(text, file):
                given.setdefault(setting.name, setting)
    documented = documented_variables(readme_of(element))
    names = [*documented, *(name for name in defaults if name.startswith("DIB_") and name not in documented)]
    taken = []
    for name in names:
        taken.append(replace(defaults.get(name, Setting(name)), about=documented.get(name, "")))
    return Settings(tuple(taken), tuple(setting for name, setting in given.items() if name not in names))


def _texts(element: Element) -> Iterator[tuple[Path, str]]:
    """The text files of the directories that hold scripts, environment.d first."""
    for name in _DIRECTORIES:
        directory = element.path / name
        if not directory.is_dir():
            continue
        with os.scandir(directory) as entries:
            files = sorted(entry.name for entry in entries if entry.is_file())
        for file in (directory / found for found in files):
            data = file.read_bytes()
            if b"\0" not in data:
                yield file, data.decode("utf-8", "replace")


def _defaults_in(text: str, file: Path) -> Iterator[Setting]:
    """Every `${NAME:-default}` whose default is not empty, the innermost ones too."""
    for line, content in enumerate(text.split("\n"), start=1):
        if content.lstrip().startswith("#"):
            continue
        for match in _EXPANSION.finditer(content):
            default = _until_brace(content[match.end() :]).strip("\"'")
            if default and match.group(1) not in OF_THE_BUILD:
                yield Setting(match.group(1), default, "", file, line)


def _until_brace(text: str) -> str:
    """What stands before the brace that closes the expansion that `text` begins in."""
    depth = 1
    for place, letter in enumerate(text):
        if letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
            if not depth:
                return text[:place]
    return text


def _exports_in(text: str, file: Path) -> Iterator[Setting]:
    """Every `export NAME=value` whose value is not the variable's own, for which there may be a default."""
    for line, content in enumerate(text.split("\n"), start=1):
        match = _EXPORT.match(content)
        if match and not re.search(rf"\$\{{?{match.group(1)}\b", match.group(2)):
            yield Setting(match.group(1), match.group(2).strip("\"'"), "", file, line)
