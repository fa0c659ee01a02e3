"""The files that a run leaves in its directory: results.json, junit.xml and report.html."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.errors import OutputError, StoreError
from dibble.fleet.reports import as_json, html, junit
from dibble.fleet.reports.page_data import Past, past_of
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
    try:
        past, unread = past_of(run, history), None
    except StoreError as error:
        past, unread = Past(), error
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in (
            (as_json.FILE_NAME, as_json.run_as_json(run).encode()),
            (junit.FILE_NAME, junit.run_as_junit(run, directory)),
            (html.FILE_NAME, html.run_as_html(run, directory, past).encode()),
        ):
            write_whole(directory / name, content)
            paths.append(directory / name)
    except OSError as error:
        raise OutputError(
            f"the reports cannot be written to {directory}: {error.strerror}",
            hint="give a directory that you may write, on a disk with space",
        ) from error
    if unread:
        raise unread
    return paths
