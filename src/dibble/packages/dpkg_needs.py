"""Packages of a Debian root with what they want of each other (deb-control(5), Debian Policy 7), and their files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dibble.packages.apt_marks import read_automatic
from dibble.packages.dpkg_database import DATABASE, PRESENT, info_name, read_status, state_of
from dibble.packages.needs import Installed, Inventory

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.packages.deb822 import Paragraph

_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")


def inventory(root: Path) -> Inventory:
    """All packages whose files are in `root`, in the order of the status file, with apt's marks.

    `Essential` and `Protected` packages are those that dpkg will not remove unless forced.
    """
    present = [paragraph for paragraph in read_status(root) if state_of(paragraph) in PRESENT]
    packages = [_installed(paragraph) for paragraph in present]
    return Inventory(
        packages,
        frozenset(name for name, _ in read_automatic(root)),
        {package.identity: _files(root, paragraph) for package, paragraph in zip(packages, present, strict=True)},
    )


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


def _files(root: Path, paragraph: Paragraph) -> list[str]:
    listed = root / DATABASE / "info" / f"{info_name(paragraph)}.list"
    return listed.read_text("utf-8", "surrogateescape").splitlines() if listed.is_file() else []
