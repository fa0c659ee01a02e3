"""Packages of a Debian root with what they want of each other (deb-control(5), Debian Policy 7), and their files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dibble.packages.dpkg_database import DATABASE, PRESENT, info_name, read_status, state_of
from dibble.packages.needs import Installed

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.packages.deb822 import Paragraph

_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")


def installed_packages(root: Path) -> list[Installed]:
    """All packages whose files are in `root`, in the order of the status file.

    `Essential` and `Protected` packages are those that dpkg will not remove unless forced.
    """
    return [_installed(paragraph) for paragraph in read_status(root) if state_of(paragraph) in PRESENT]


def _installed(paragraph: Paragraph) -> Installed:
    return Installed(
        paragraph.get("Package"),
        paragraph.get("Version"),
        paragraph.get("Architecture"),
        frozenset(name for names in _relations(paragraph.get("Provides")) for name in names),
        _relations(paragraph.get("Pre-Depends")) + _relations(paragraph.get("Depends")),
        _relations(paragraph.get("Recommends")),
        "yes" in (paragraph.get("Essential"), paragraph.get("Protected")),
    )


def _relations(text: str) -> tuple[tuple[str, ...], ...]:
    """`a (>= 1) | b:any, c` → (("a", "b"), ("c",)); versions and architectures are left out."""
    groups = []
    for group in text.split(","):
        found = (_NAME.match(one) for one in group.split("|"))
        names = tuple(match[1] for match in found if match)
        if names:
            groups.append(names)
    return tuple(groups)


def listed_files(root: Path) -> dict[tuple[str, str], list[str]]:
    """By (name, architecture): the paths of each package, absolute, as dpkg keeps them; directories are among them."""
    found = {}
    for paragraph in read_status(root):
        if state_of(paragraph) in PRESENT:
            listed = root / DATABASE / "info" / f"{info_name(paragraph)}.list"
            text = listed.read_text("utf-8", "surrogateescape") if listed.is_file() else ""
            found[paragraph.get("Package"), paragraph.get("Architecture")] = text.splitlines()
    return found
