"""The end of a cell's log, for reports that embed it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.fleet.reports.plain import readable

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.fleet.model import CellResult


@dataclass(frozen=True, slots=True)
class LogEnd:
    """What a log ends with, as text; `left_out` bytes stand before it in the file."""

    text: str
    left_out: int


def log_end(directory: Path, result: CellResult, limit: int) -> LogEnd | None:
    """Up to `limit` bytes, whole lines where there are any; None when there is no log in `directory`.

    Results may come from elsewhere: a path that leads out of the directory is not followed.
    """
    if not result.log or limit <= 0:
        return None
    try:
        path = (directory / result.log).resolve()
        if not path.is_relative_to(directory.resolve()) or not path.is_file():
            return None
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            left_out = max(0, size - limit)
            file.seek(left_out)
            data = file.read(limit)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None
    if left_out:
        partial, line_end, rest = data.partition(b"\n")
        if line_end and rest:
            data, left_out = rest, left_out + len(partial) + 1
    return LogEnd(readable(data), left_out)
