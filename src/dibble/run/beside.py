"""Files that scripts leave beside the image: later scripts find them there, and may change and remove them.

What one step has written is kept with its layer, in the form of an overlay's upper directory: a whiteout stands for a
file of an earlier step that it removed.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.run.freeze import is_whiteout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.sandbox.workspace import Scratch, Workspace

Exports = tuple[Path, tuple[str, ...]]
"""A directory with files for beside the image, and the names in it."""


def laid_over(beside: Path, left: Sequence[Path], workspace: Workspace) -> list[Path]:
    """The directories to lay over `beside` (topmost first) that show what earlier steps have `left`, in their order.

    An overlay takes no directory that lies in another of its own, as a store in the home directory may: what such a
    store holds is copied, once a build.
    """
    above: list[Path] = []
    for place in left:
        shown = place
        if place.resolve().is_relative_to(beside):
            shown = workspace.memory_place(f"beside-{place.parent.name}")
            if not shown.is_dir():
                _copy(place, shown)
        above.insert(0, shown)
    return above


def written(scratch: Scratch, above: Sequence[Path], workspace: Workspace) -> Exports | None:
    """A copy of what was written into the directory of the image, where earlier steps had left what is in `above`."""
    place = workspace.new_directory("exports")
    for name, upper in scratch.uppers.items():
        for path in upper.iterdir():
            own = f"{name}/{path.name}" if name else path.name
            if own not in scratch.stand_ins:
                _copy(path, place / own, [lower / own for lower in above])
    names = tuple(sorted(path.name for path in place.iterdir()))
    return (place, names) if names else None


def _copy(source: Path, target: Path, hidden: Sequence[Path] | None = None) -> None:
    """Copy files, directories, links and whiteouts; sockets and the like are left out.

    With `hidden`, a whiteout counts only where one of these is there: files of the host stay as they are.
    """
    if is_whiteout(source.lstat()):
        if hidden is None or any(map(os.path.lexists, hidden)):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(target, 0o600 | stat.S_IFCHR, 0)
    elif source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            _copy(path, target / path.name, None if hidden is None else [lower / path.name for lower in hidden])
        shutil.copystat(source, target)
