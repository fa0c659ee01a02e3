"""Packages of a root with RPM packages, with what they want of each other (rpm-dependencies(7)), and their files."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from dibble.packages.needs import Installed, Inventory
from dibble.packages.rpm_database import RpmDatabase, uses_zypper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.packages.needs import Identity
    from dibble.sandbox.toolbox import Toolbox

_FORMAT = (
    "n%{NAME}\\t%{EVR}\\t%{ARCH}\\n[p%{PROVIDENAME}\\n][r%{REQUIRENAME}\\n][w%{RECOMMENDNAME}\\n][f%{FILENAMES}\\n]"
)
"""A line each: what follows the first letter belongs to the package of the last line with an `n`."""
_KINDS = "prwf"
_WORDS_OF_RICH = frozenset(("and", "else", "if", "or", "unless", "with", "without"))
_COMPARISONS = frozenset(("<", "<=", "=", ">=", ">"))
_PROGRAM = re.compile(r"/(?:usr/)?s?bin/")
_LIBRARY = re.compile(r"/lib(?=64/|/)")
_BY_ITSELF = (1, 4)  # libdnf's TransactionItemReason: DEPENDENCY, WEAK_DEPENDENCY
_BY_ITSELF_5 = ("Dependency", "Weak Dependency")


def inventory(root: Path, toolbox: Toolbox) -> Inventory:
    """All packages of `root`, sorted by name, with the marks of their manager; those that dnf protects are essential.

    Raises ToolFailed for a database that rpm cannot read.
    """
    database = RpmDatabase(root, toolbox, None)
    found = _packages(database.query(_FORMAT) if database.is_there else "")
    wanted = {name for _, of in found for one in of["r"] + of["w"] for name in _names(one) if name.startswith("/")}
    protected = _protected(root)
    packages = [
        Installed(
            *identity,
            frozenset(map(_plain, of["p"])) | (wanted & {_plain(path) for path in of["f"]}),
            tuple((name,) for one in of["r"] for name in _names(one)),
            tuple((name,) for one in of["w"] for name in _names(one)),
            identity[0] in protected,
        )
        for identity, of in found
    ]
    automatic = _of_zypper(root) if uses_zypper(root) else _of_dnf(root)
    return Inventory(packages, frozenset(automatic), {identity: of["f"] for identity, of in found})


def _packages(printed: str) -> list[tuple[Identity, dict[str, list[str]]]]:
    found: list[tuple[Identity, dict[str, list[str]]]] = []
    for line in printed.splitlines():
        kind, rest = line[:1], line[1:]
        if kind == "n":
            name, version, arch = rest.split("\t")
            found.append(((name, version, arch), {one: [] for one in _KINDS}))
        elif kind and kind in _KINDS and found:
            found[-1][1][kind].append(rest)
    return sorted((row for row in found if row[0][0] != "gpg-pubkey"), key=lambda row: row[0])


def _names(dependency: str) -> list[str]:
    """The names in a dependency; of a boolean one, `(a if b)`, all of them, since each may be needed."""
    if not dependency.startswith("("):
        return [_plain(dependency)]
    words = [_balanced(word) for word in dependency.split()]
    return [
        _plain(word)
        for before, word in zip(["", *words], words, strict=False)
        if word not in _WORDS_OF_RICH | _COMPARISONS and before not in _COMPARISONS
    ]


def _balanced(word: str) -> str:
    """A word without the parentheses of the expression around it; `libc.so.6()(64bit)` has some of its own."""
    word = word.lstrip("(")
    while word.endswith(")") and word.count(")") > word.count("("):
        word = word[:-1]
    return word


def _plain(name: str) -> str:
    """A path where a merged /usr has it, with one directory for programs as Fedora has; any other name as it is."""
    if not name.startswith("/"):
        return name
    program = _PROGRAM.match(name)
    if program:
        return f"/usr/bin/{name[program.end() :]}"
    return f"/usr{name}" if _LIBRARY.match(name) else name


def _protected(root: Path) -> set[str]:
    """Packages that dnf does not remove (dnf.conf(5), protected_packages)."""
    words = (file.read_text("utf-8", "replace").split() for file in root.glob("etc/dnf/protected.d/*.conf"))
    return {word for found in words for word in found}


def _of_zypper(root: Path) -> Iterator[str]:
    file = root / "var/lib/zypp/AutoInstalled"
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    return (line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _of_dnf(root: Path) -> Iterator[str]:
    """The names of packages of which dnf, or dnf5, last noted that they came along."""
    import sqlite3

    newer, older = root / "usr/lib/sysimage/libdnf5/packages.toml", root / "var/lib/dnf/history.sqlite"
    if newer.is_file():
        packages = tomllib.loads(newer.read_text("utf-8")).get("packages", {})
        yield from (name.rpartition(".")[0] for name, row in packages.items() if row.get("reason") in _BY_ITSELF_5)
    elif older.is_file():
        connection = sqlite3.connect(f"{older.as_uri()}?mode=ro", uri=True)
        rows = connection.execute(
            "SELECT name, reason FROM trans_item JOIN rpm USING (item_id) ORDER BY trans_item.id"
        ).fetchall()
        connection.close()
        yield from (name for name, reason in dict(rows).items() if reason in _BY_ITSELF)
