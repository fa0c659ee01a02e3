"""Files of the caller that scripts outside the target read: heard while a script runs, and compared at the next build.

In the directory of the image and in the working directory every file that is opened, and every directory that is
listed, becomes an input of the layer (`store/layers.py: Input`) by its content: what changes there lets the script run
again. What is only asked for its status, or was not there, is not heard of (docs/plan.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.store.layers import Input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.recipe.model import Request
    from dibble.sandbox.opened import Opened

KINDS = ("file beside the image", "file in the working directory")
"""Kinds of inputs; their names are paths relative to that directory."""
DIRECTORIES_LIMIT = 1000
"""In each of the two places so many directories are listened in, the upper ones first: some 10 ms for a script."""
_READ_LIMIT = 64 << 20  # bytes; of a larger file, size and time count, as in plan/key.py
_ABSENT = "absent"


def places(request: Request) -> dict[str, Path]:
    """The directories whose files count, by kind; without the working directory where that is in the image's."""
    beside = (request.cwd / request.name).parent.resolve()
    cwd = request.cwd.resolve()
    found = {KINDS[0]: beside}
    if not cwd.is_relative_to(beside):
        found[KINDS[1]] = cwd
    return {kind: path for kind, path in found.items() if path != Path("/")}


def digest_of(path: Path, image: str) -> str:
    """What a file holds, or which names a directory has, less those that begin with the image's own."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            names = sorted(name for name in os.listdir(path) if not image or not name.startswith(image))  # noqa: PTH208
            return f"names {hashlib.sha256(os.fsencode(chr(0).join(names))).hexdigest()}"
        if not stat.S_ISREG(status.st_mode):
            return "no file"
        if status.st_size > _READ_LIMIT:
            return f"{status.st_size} bytes of {status.st_mtime_ns}"
        with path.open("rb") as file:
            return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return _ABSENT


def are_current(request: Request, inputs: Sequence[Input]) -> bool:
    """Whether the files among these inputs are as they were; other kinds of inputs are not looked at."""
    roots = places(request)
    image = Path(request.name).name
    for entry in inputs:
        if entry.kind in KINDS:
            root = roots.get(entry.kind)
            if root is None or digest_of(root / entry.name, image) != entry.digest:
                return False
    return True


@dataclass(slots=True)
class Reads:
    """What scripts of one build have read in the caller's directories, one script at a time."""

    request: Request
    view: Path
    skipped: tuple[Path, ...]
    """Directories of the host that are not the caller's: the store."""
    _heard: dict[str, Opened] = field(default_factory=dict)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen while a script runs. The caller's directories must be mounted in the view."""
        from dibble.sandbox.opened import opened_below

        self._heard = {}
        with contextlib.ExitStack() as stack:
            roots = places(self.request)
            for kind, root in roots.items():
                shown = self.view / root.relative_to("/")
                # What is looked through for one place must not be heard in the other.
                others = [path for path in roots.values() if path != root]
                skip = [self.view / path.relative_to("/") for path in (*self.skipped, *others)]
                if shown.is_dir():
                    listening = opened_below(shown, not_watched=(), skip=skip, limit=DIRECTORIES_LIMIT)
                    self._heard[kind] = stack.enter_context(listening)
            yield

    def forget(self) -> None:
        self._heard = {}

    def inputs(self, written: Sequence[Path], fetched: Sequence[Input] = ()) -> tuple[Input, ...]:
        """What the last script has read, less what is there in the directories `written`: by it or earlier ones.

        Of a repository that is among what it `fetched`, the commit counts and no file: it is asked as seldom as others.
        """
        from dibble.packages.origin import local_repository

        repositories = {path.resolve() for entry in fetched if (path := local_repository(entry.kind, entry.name))}
        image = Path(self.request.name).name
        roots = places(self.request)
        found = []
        for kind, opened in self._heard.items():
            for name in sorted(opened.files | opened.folders):
                path = roots[kind] / name
                is_own = kind == KINDS[0] and name and any(os.path.lexists(place / name) for place in written)
                is_own = is_own or not repositories.isdisjoint((path, *path.parents))
                if not is_own and not (image and name.partition("/")[0].startswith(image)):
                    found.append(Input(kind, name or ".", digest_of(path, image)))
        # What was not on the host when the script had ended was the script's own, and temporary.
        return tuple(entry for entry in found if entry.digest != _ABSENT)
