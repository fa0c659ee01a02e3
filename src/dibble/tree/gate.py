"""Whether a finished tree is fit for the environment that it was made for: what must be in it, and what must not."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dibble.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.recipe.model import Target

_SHOWN = 3


def check_gate(root: Path, target: Target) -> None:
    """Raises OutputError, naming each pattern of the preset's gate that does not hold of the tree at `root`.

    Links inside the tree are not followed, so nothing outside of it counts.
    """
    wrong = [f'nothing in it matches "{pattern}"' for pattern in target.gate.present if not _some(root, pattern)]
    for pattern in target.gate.absent:
        found = _some(root, pattern)
        if found:
            wrong.append(f'it has {", ".join(found)} ("{pattern}" has to be absent)')
    if wrong:
        raise OutputError(
            f"the image is not fit for the environment {target.name}: {'; '.join(wrong)}",
            hint=f"add or leave out elements, or give an environment of your own without that gate ({target.source})",
        )


def _some(root: Path, pattern: str) -> list[str]:
    """The first few paths below `root` that match, each as it would be in the image."""
    found = []
    for path in _matches(root, [part for part in pattern.split("/") if part]):
        found.append(f"/{path.relative_to(root)}")
        if len(found) == _SHOWN:
            break
    return found


def _matches(directory: Path, parts: list[str]) -> Iterator[Path]:
    """Entries whose names match part by part."""
    if directory.is_symlink() or not directory.is_dir():
        return
    for entry in sorted(directory.iterdir(), key=lambda path: path.name):
        if fnmatchcase(entry.name, parts[0]):
            if len(parts) == 1:
                yield entry
            else:
                yield from _matches(entry, parts[1:])
