"""pacman.conf(5): which repositories a system has and what its settings say of packages; and one of our own.

The rest of a system's settings (places, downloads, what is shown) is for pacman of that system.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIGURATION = "etc/pacman.conf"
_OF_PACKAGES = ("HoldPkg", "IgnoreGroup", "IgnorePkg", "NoExtract", "NoUpgrade")
_DEPTH = 10  # files that include each other


class Check(StrEnum):
    """What a system wants of the signatures of packages (SigLevel)."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Repository:
    """One of a system's: `servers` are addresses with nothing left to fill in, best first."""

    name: str
    servers: tuple[str, ...]
    check: Check = Check.REQUIRED

    def urls(self, file: str) -> tuple[str, ...]:
        """Where a file of it may be had."""
        return tuple(f"{server}/{file}" for server in self.servers)


@dataclass(frozen=True, slots=True)
class Configuration:
    """`settings` are the lines about packages."""

    repositories: tuple[Repository, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    def text(self, arch: str, hooks: str) -> str:
        """A pacman.conf for a pacman that is given all files, each of them checked; it is told of no server."""
        lines = ["[options]", f"Architecture = {arch}", f"HookDir = {hooks}", "SigLevel = Never"]
        lines += [f"{name} = {value}" for name, value in self.settings]
        for repository in self.repositories:
            lines += [f"[{repository.name}]", "Server = file:///nowhere"]
        return "".join(f"{line}\n" for line in lines)


@dataclass(slots=True)
class _Reader:
    root: Path
    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    section: str = ""

    def read(self, file: Path, depth: int = 0) -> None:
        if depth > _DEPTH or not file.is_file() or not file.resolve().is_relative_to(self.root.resolve()):
            return
        for line in _lines(file.read_text("utf-8", "replace")):
            name, _, value = (word.strip() for word in line.partition("="))
            if line.startswith("["):
                self.section = line.strip("[]").strip()
                self.sections.setdefault(self.section, [])
            elif name == "Include":
                for path in sorted(glob.glob(f"{self.root}/{value.lstrip('/')}")):  # noqa: PTH207 - the pattern's own /
                    self.read(Path(path), depth + 1)
            else:
                self.sections.setdefault(self.section, []).append((name, value))


def read_configuration(root: Path, arch: str) -> Configuration:
    """What the settings of the system in `root` say; `arch` is pacman's name for the machine."""
    reader = _Reader(root)
    reader.read(root / CONFIGURATION)
    options = reader.sections.pop("options", [])
    general = _check(options, Check.REQUIRED)
    return Configuration(
        tuple(
            Repository(name, servers_of([value for key, value in lines if key == "Server"], name, arch), check)
            for name, lines in reader.sections.items()
            for check in [_check(lines, general)]
        ),
        tuple((name, value) for name, value in options if name in _OF_PACKAGES),
    )


def servers_of(patterns: Sequence[str], repository: str, arch: str) -> tuple[str, ...]:
    """Addresses out of those of mirrors, which stand for many: pacman.conf(5), `Server`."""
    return tuple(one.replace("$repo", repository).replace("$arch", arch).rstrip("/") for one in patterns)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield stripped


def _check(lines: Sequence[tuple[str, str]], before: Check) -> Check:
    """The last word about packages counts; what is said of databases alone is not looked at."""
    for name, value in lines:
        for word in value.split() if name == "SigLevel" else ():
            plain = word.removeprefix("Package")
            if plain in list(Check):
                before = Check(plain)
    return before
