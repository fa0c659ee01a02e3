"""Packages of a root of pacman's, with what they want of each other, and their files, out of its own database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dibble.packages.needs import Installed, Inventory
from dibble.packages.pacman_database import LOCAL, automatic, sections

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dibble.packages.needs import Identity

_VERSION = re.compile(r"[<>=:].*", re.DOTALL)
"""What follows a name: a version (`a>=1`), or why an optional dependency is one (`a: for b`)."""


def inventory(root: Path) -> Inventory:
    """All packages of `root`, sorted by name, with pacman's marks. An optional dependency counts as recommended."""
    packages: list[Installed] = []
    files: dict[Identity, Sequence[str]] = {}
    for place in sorted((root / LOCAL).glob("*/desc")):
        told = sections(place.read_text("utf-8", "replace"))
        name, version, arch = ((told.get(key) or [""])[0] for key in ("NAME", "VERSION", "ARCH"))
        packages.append(
            Installed(
                name,
                version,
                arch,
                frozenset(_name(one) for one in told.get("PROVIDES", ())),
                tuple((_name(one),) for one in told.get("DEPENDS", ())),
                tuple((_name(one),) for one in told.get("OPTDEPENDS", ())),
            )
        )
        listed = place.with_name("files")
        text = listed.read_text("utf-8", "surrogateescape") if listed.is_file() else ""
        files[packages[-1].identity] = [f"/{path}" for path in sections(text).get("FILES", ())]
    return Inventory(packages, frozenset(automatic(root)), files)


def _name(word: str) -> str:
    return _VERSION.sub("", word).strip()
