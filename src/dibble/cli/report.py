"""`dibble report`: the results of a matrix, looked at later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dibble.errors import OutputError, UsageError
from dibble.wording import bytes_text, seconds_text

if TYPE_CHECKING:
    from dibble.fleet.history import History
    from dibble.fleet.model import MatrixRun


@click.command(short_help="Show the results of a matrix again, write its reports, list its history.")
@click.argument("source", required=False, metavar="[DIR|results.json|RUN]")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write the page of the run.")
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML for a CI system.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--history", "listing", is_flag=True, help="List the runs that the history has: of a matrix, or of all.")
@click.option("--last", metavar="N", type=click.IntRange(min=1), help="With --history: only so many runs.")
@click.option("--record", is_flag=True, help="Put the run into the history.")
@click.option("--check", is_flag=True, help="End with 1 unless every cell that must succeed has.")
@click.option(
    "--history-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The history; $DIBBLE_HISTORY or one in the user's state directory by default.",
)
def report(
    *,
    source: str | None,
    html: Path | None,
    junit: Path | None,
    as_json: bool,
    listing: bool,
    last: int | None,
    record: bool,
    check: bool,
    history_file: Path | None,
) -> int:
    """Show the results of a run of `dibble matrix`, which are in its directory, a results.json or the history.

    With --history the argument is the name of a matrix: its runs are listed, the newest first.

    The exit status is 0 when everything asked for was done, however cells ended (see --check); 1 when a file or the
    history cannot be read or written; 2 when the results cannot be understood.
    """
    from dibble.fleet.history import History

    history = History(history_file or History.default_path(os.environ))
    if listing:
        if html or junit or record or check:
            raise UsageError("--history lists runs and does nothing else", hint="leave the other options out")
        _list(history, source, last, as_json=as_json)
        return 0
    if last is not None:
        raise UsageError("--last says how many runs --history lists", hint="give --history too")
    if source is None:
        raise UsageError(
            "no results are named", hint="give the directory of a run, its results.json or its id; --history lists them"
        )
    run, directory = _read(source, history)
    if record:
        history.record(run)
    _write(run, directory, history, html, junit)
    _show(run, as_json=as_json)
    return 1 if check and not _is_good(run) else 0


def _read(source: str, history: History) -> tuple[MatrixRun, Path]:
    """The run, and the directory that its logs are in; of a run from the history they are where it was made."""
    from dibble.fleet.reports.as_json import read_run

    path = Path(source)
    if not path.exists() and path.name == source and any(known.id == source for known in history.runs()):
        return history.load(source), path
    return read_run(path), path if path.is_dir() else path.parent


def _write(run: MatrixRun, directory: Path, history: History, html: Path | None, junit: Path | None) -> None:
    from dibble.fleet.reports.html import run_as_html
    from dibble.fleet.reports.junit import run_as_junit
    from dibble.fleet.reports.page_data import past_of
    from dibble.store.places import write_whole

    made = {}
    if html:
        made[html] = run_as_html(run, directory, past_of(run, history)).encode()
    if junit:
        made[junit] = run_as_junit(run, directory)
    for path, content in made.items():
        try:
            write_whole(path, content)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror}", hint="give a file in a directory that you may write"
            ) from error


def _show(run: MatrixRun, *, as_json: bool) -> None:
    from dibble.cli.matrix_table import show_table
    from dibble.fleet.reports.as_json import run_as_json

    if as_json:
        click.echo(run_as_json(run), nl=False)
    else:
        show_table(run)


def _is_good(run: MatrixRun) -> bool:
    """Whether the run is done and no cell failed, or was skipped, that must not."""
    from dibble.fleet.model import Outcome

    fine = {Outcome.SUCCESS, Outcome.UNSUPPORTED}
    return run.ended is not None and all(one.outcome in fine or one.cell.allow_failure for one in run.results)


def _list(history: History, matrix: str | None, last: int | None, *, as_json: bool) -> None:
    import json

    from dibble.fleet.reports.page_data import time_text
    from dibble.fleet.reports.plain import one_line

    runs = history.runs(matrix, last=last)
    if as_json:
        listed = [
            {
                "id": run.id,
                "matrix": run.matrix,
                "version": run.version,
                "began": run.began,
                "ended": run.ended,
                "outcomes": {outcome.value: number for outcome, number in run.outcomes.items()},
                "flaky": run.flaky,
                "seconds_of_cells": run.seconds,
                "bytes_of_outputs": run.size,
            }
            for run in runs
        ]
        click.echo(json.dumps({"path": str(history.path), "runs": listed}, indent=2))
        return
    if not runs:
        of = f" of {one_line(matrix)}" if matrix else ""
        click.echo(f"no runs{of} in {history.path}")
        return
    lines = [("RUN", "MATRIX", "BEGAN", "TOOK", "IMAGES", "CELLS")]
    for run in runs:
        took = seconds_text(run.ended - run.began) if run.ended is not None else "interrupted"
        cells = ", ".join(f"{number} {outcome}" for outcome, number in run.outcomes.items()) or "none"
        lines.append((one_line(run.id), one_line(run.matrix), time_text(run.began), took, bytes_text(run.size), cells))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
        click.echo("  ".join([*padded, line[5]]))
