"""Paths of a system that lies in a directory of another one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def resolve_inside(root: Path, name: str) -> Path:
    """Where the absolute or relative path `name` of the system in `root` really is, following links inside `root`.

    What does not exist is taken as it is written. Linear in the number of parts; a loop of links ends at 40, as in the
    kernel (path_resolution(7)).
    """
    waiting = [part for part in reversed(name.split("/")) if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            done = done[:-1]
            continue
        path = os.path.join(root, *done, part)  # noqa: PTH118 - called for each directory of a package
        if links < 40 and os.path.islink(path):  # noqa: PTH114
            links += 1
            goal = os.readlink(path)  # noqa: PTH115
            if goal.startswith("/"):
                done = []
            waiting += [step for step in reversed(goal.split("/")) if step not in ("", ".")]
        else:
            done.append(part)
    return root.joinpath(*done)
