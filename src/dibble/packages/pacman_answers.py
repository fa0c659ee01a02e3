"""What pacman prints, read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.errors import NoSuchPackage, PackageError

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "\t".join(("%r", "%n", "%v", "%a", "%f", "%s", "%h", "%R"))
"""What `--print-format` is to be for `rows_of`. With %g pacman 7.0 ends where a database holds no signatures."""
_FIELDS = FORMAT.count("\t") + 1
_NOT_FOUND = re.compile(r"^error: target not found: (.+)$", re.MULTILINE)
_TOLD = ("error: ", "warning: ", ":: ")
_STEP = re.compile(r"^(?:\(\d+/\d+\) )?(?:re)?(?:installing|upgrading|downgrading|removing) \S+\.\.\.$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOGGED = re.compile(r"^\[[^\]]*\] \[(?!PACMAN\])")
_TIME = re.compile(r"^\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Row:
    """A package that comes in. `size` in bytes."""

    repository: str
    name: str
    version: str
    arch: str
    file: str
    size: int
    sha256: str
    replaces: tuple[str, ...]


def rows_of(output: str) -> list[Row]:
    """The packages in what pacman prints of a transaction. Raises PackageError for one without a sha256."""
    rows = []
    for line in output.splitlines():
        fields = line.split("\t")
        if len(fields) != _FIELDS:
            continue  # a choice that it has made: it tells of which, and of the others
        repository, name, version, arch, file, size, sha256, replaces = fields
        if not _SHA256.fullmatch(sha256) or "/" in file:
            raise PackageError(
                f"the repository {repository} has no sha256 of {name}",
                hint="such a repository is too old to be used safely",
            )
        names = tuple(re.split(r"[<>=]", word)[0] for word in replaces.split() if word != "None")
        rows.append(Row(repository, name, version, arch, file, int(size), sha256, names))
    return rows


def is_step(line: str) -> bool:
    """Whether a line tells that a package is being put in place or removed."""
    return _STEP.match(line) is not None


def warnings_in(output: str) -> list[str]:
    """What went wrong in a transaction that was carried out all the same, such as a script that failed."""
    return [line.removeprefix("error: ") for line in output.splitlines() if line.startswith("error: ")]


def refusal(output: str, status: int) -> PackageError:
    """Why a transaction cannot be."""
    if names := _NOT_FOUND.findall(output):
        return NoSuchPackage(
            f"no repository has a package {', '.join(names)}", hint="is it called otherwise here (pkg-map)?"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(_TOLD) or "exists in filesystem" in line]
    text = "; ".join(told or lines[-8:]) or f"it ended with status {status}"
    return PackageError(f"pacman cannot carry out the transaction: {text}")


def log_lines(text: str, moment: str) -> Sequence[str]:
    """What pacman's log is to say of what it did, all of it at `moment`, and nothing of how it was called."""
    return [_TIME.sub(f"[{moment}]", line) for line in text.splitlines() if _LOGGED.match(line)]
