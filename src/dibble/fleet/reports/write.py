"""The files that a run leaves in its directory: results.json, junit.xml and report.html."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.errors import OutputError
from dibble.fleet.reports import as_json
from dibble.store.places import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.fleet.history import History
    from dibble.fleet.model import MatrixRun


def write_reports(run: MatrixRun, directory: Path, history: History | None) -> list[Path]:
    """Write the reports of a run, each whole or not at all, and return their paths.

    Logs are found in `directory`. The history is only read: for changes since the previous run, and for trends.
    Raises OutputError when the directory cannot be written, and StoreError when the history cannot be read: then the
    reports are written without it first.
    """
    path = directory / as_json.FILE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, as_json.run_as_json(run).encode())
    except OSError as error:
        raise OutputError(
            f"the reports cannot be written to {directory}: {error.strerror}",
            hint="give a directory that you may write, on a disk with space",
        ) from error
    return [path]
