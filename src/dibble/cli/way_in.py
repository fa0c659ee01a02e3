"""The command line that leads to where a build has failed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.recipe.load import without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.errors import DibbleError

_ENTRY = "dibble"


def with_way_in(error: DibbleError, arguments: Sequence[str], *, keeps: bool) -> None:
    """Add to an error that ended a step how to look around there, with the user's own arguments.

    `keeps`: what the step had written was kept.
    """
    if not error.failed_step:
        return
    place = ["--failed"] if keeps else ["--at", error.failed_step]
    # What was to run again has run, and would do so before each look.
    own = [word for word in without(arguments, "--refresh", "--json", "--keep-on-failure") if word != "--"]
    words = [program(), "shell", *place, *own]
    error.way_in = " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word as a shell reads it, on one line."""
    if "\n" not in word:
        return shlex.quote(word)
    text = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{text}'"


def program() -> str:
    """How the user calls dibble: as they did, or by name where it is found by that.

    The starter in a repository says how it was called, as Python does not see it.
    """
    called = os.environ.get("DIBBLE_COMMAND") or sys.argv[0]
    beside = Path(called).with_name(_ENTRY)  # of disk-image-create
    found = shutil.which(_ENTRY)
    if found and beside.exists() and Path(found).samefile(beside):
        return _ENTRY
    # `with_name` forgets the "./" without which a shell would search its PATH.
    return str(beside) if beside.is_absolute() or len(beside.parts) > 1 else f"./{beside}"
