"""Paths inside a tree that is not ours: links in it are followed as a process chrooted there would follow them."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath

MOST_LINKS = 40  # as Linux, path_resolution(7)


def within(root: Path, path: str) -> Path:
    """Where `path`, seen from inside `root`, lies. The result never leaves `root` and need not exist.

    Raises OSError (ELOOP) for links that lead round in circles.
    """
    rest = [part for part in reversed(PurePosixPath(path).parts) if part != "/"]
    done: list[str] = []
    links = 0
    while rest:
        part = rest.pop()
        if part == "..":
            del done[-1:]
            continue
        place = root.joinpath(*done, part)
        if not place.is_symlink():
            done.append(part)
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))
        target = PurePosixPath(os.readlink(place))  # noqa: PTH115 - a path of that tree, not one of the host's
        if target.is_absolute():
            done.clear()
        rest.extend(part for part in reversed(target.parts) if part != "/")
    return root.joinpath(*done)
