"""`dibble matrix`: every cell of a matrix of hosts and targets, and a table of what came of it."""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dibble import registry
from dibble.cli.options import schema_option
from dibble.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.fleet.cells import Work
    from dibble.fleet.model import MatrixRun
    from dibble.fleet.pool import Pool
    from dibble.fleet.spec import Spec


@click.command(
    name="matrix",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Build many images: hosts, distributions, formats …, each with each.",
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.yaml")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Of the run; default: NAME-matrix, here.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cells at a time; default: by cores and memory.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Run the cells on the workers of this Dask scheduler.")
@click.option("--remote", metavar="URL", help="Remote cache in which machines find each other's layers.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only cells whose name fits, and what they need.")
@click.option("--fail-fast", is_flag=True, help="Stop everything at the first failure.")
@click.option("--resume", is_flag=True, help="Keep what has succeeded, also where the last run came to its end.")
@click.option("--fresh", is_flag=True, help="Build all cells, also where the last run was interrupted.")
@click.option("--max-cells", type=click.IntRange(min=1), metavar="N", help="Allow so many cells; default: 500.")
@click.option("--list", "list_only", is_flag=True, help="Print the cells and build nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON on standard output.")
@schema_option("dibble.fleet.schema", "matrix files")
def matrix(file: Path, **options: Any) -> int:
    """Build every cell of the matrix in FILE.yaml (docs/matrix.md).

    A run that was interrupted goes on where it was. Ends with 0 when no cell failed that must not.

    \b
    dibble matrix matrix.yaml
    dibble matrix matrix.yaml --only 'local/debian*' --fail-fast
    dibble matrix matrix.yaml --scheduler tcp://HOST:8786 --remote s3://BUCKET/cache
    """
    from dibble.fleet.cells import cells_of
    from dibble.fleet.read_matrix import read_matrix
    from dibble.recipe.load import this_host

    if options["resume"] and options["fresh"]:
        raise UsageError("--resume and --fresh exclude each other", hint="give one of them")
    host = this_host()
    spec = read_matrix(host.cwd / file, shown=str(file))
    works = cells_of(spec, os.environ, host, max_cells=options["max_cells"], here=not options["scheduler"])
    only = selected(works, options["only"]) if options["only"] else None
    if options["list_only"]:
        for work in works:
            if only is None or work.cell.name in only:
                click.echo(work.cell.name + (f"  unsupported: {work.unsupported}" if work.unsupported else ""))
        return 0
    return _run(spec, works, only, host.cwd, options)


def selected(works: Sequence[Work], patterns: Sequence[str]) -> frozenset[str]:
    """The names that fit one of the patterns, with all that they need. Raises UsageError where one fits nothing."""
    cells = {work.cell.name: work.cell for work in works}
    found: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(cells, pattern)
        if not fitting:
            raise UsageError(f'no cell is named "{pattern}"', hint="see the names: dibble matrix FILE.yaml --list")
        found.update(fitting)
    todo = list(found)
    while todo:
        for need in cells[todo.pop()].needs:
            if need not in found:
                found.add(need)
                todo.append(need)
    return frozenset(found)


def _run(spec: Spec, works: Sequence[Work], only: frozenset[str] | None, cwd: Path, options: Mapping[str, Any]) -> int:
    from dibble.events import Events
    from dibble.fleet.run import Runner, Settings, status_of
    from dibble.fleet.state import journal, new_state
    from dibble.recipe.load import cache_dir

    directory = cwd / (options["out"] or f"{spec.name}-matrix")
    environment = build_environment(os.environ, cwd)
    remote = remote_of(options["remote"], environment, spec.base, cwd)
    if options["remote"]:
        environment["DIBBLE_REMOTE_CACHE"] = remote
        environment.setdefault("DIBBLE_REMOTE_CACHE_PUSH", "yes")  # machines meet there, also by HTTP
    pool = _pool(options, remote if environment.get("DIBBLE_REMOTE_CACHE_PUSH") != "no" else "", bool(remote))
    settings = Settings(
        matrix=spec.name,
        directory=directory,
        store=cache_dir(os.environ),
        environment=environment,
        fail_fast=options["fail_fast"],
        only=only,
        slots=pool.slots,
    )
    with journal(directory) as book:
        last = None if options["fresh"] else book.read()
        going_on = last is not None and (options["resume"] or not last.ended)
        state = last if last is not None and going_on else new_state()
        book.begin(state, resumed=going_on)
        display = _display(as_json=options["as_json"])
        events = Events([display])
        try:
            run = Runner(works, pool, settings, state=state, journal=book, events=events).go()
        finally:
            pool.close()
            events.close()
    _report(run, directory, as_json=options["as_json"])
    status = status_of(run)
    if status == Interrupted.exit_status:
        raise Interrupted("stopped by the user", hint="the same command goes on with the cells that are not done")
    return status


def _pool(options: Mapping[str, Any], written_to: str, has_remote: bool) -> Pool:
    """Where the cells run. `written_to` is the remote cache that all workers must be able to write to."""
    if options["scheduler"] is None:
        made: Pool = registry.load("pools", "local")(options["jobs"])
    else:
        made = registry.load("pools", "dask")(
            options["jobs"], address=options["scheduler"], remote=written_to, is_cold=not has_remote
        )
    return made


def remote_of(given: str | None, environment: Mapping[str, str], base: Mapping[str, Any], cwd: Path) -> str:
    """The remote cache of the builds, as the command line, the environment or the file says; empty for none."""
    from dibble.store.transport import is_local

    found = given or environment.get("DIBBLE_REMOTE_CACHE") or str(base.get("remote-cache", ""))
    return str(cwd / found) if found and "://" not in found and is_local(found) else found


def _report(run: MatrixRun, directory: Path, *, as_json: bool) -> None:
    """Keep the run in the history, leave its reports in its directory, and show the table.

    Raises StoreError, once the reports are written, where the history cannot be used.
    """
    from dibble.cli.matrix_table import show_table
    from dibble.fleet.history import History
    from dibble.fleet.reports.html import FILE_NAME
    from dibble.fleet.reports.write import write_reports

    history = History(History.default_path(os.environ))
    try:
        history.record(run)
    finally:
        write_reports(run, directory, history)
        if not as_json:
            show_table(run)
            click.echo(f"report: {directory / FILE_NAME}")


def build_environment(environ: Mapping[str, str], cwd: Path) -> dict[str, str]:
    """The environment of the builds, which run in directories of their own: relative paths in it are made absolute."""
    from dibble.recipe import kinds
    from dibble.recipe.options import OPTIONS
    from dibble.recipe.presets import PATH_VARIABLE

    found = dict(environ)
    lists = {PATH_VARIABLE, *(option.variable for option in OPTIONS if option.kind is kinds.PATHS)}
    own = ("name", "logfile")
    single = {option.variable for option in OPTIONS if option.kind is kinds.PATH and option.key not in own}
    for name in lists & found.keys():
        found[name] = os.pathsep.join(str(cwd / entry) if entry else "" for entry in found[name].split(os.pathsep))
    for name in single & found.keys():
        if found[name]:
            found[name] = str(cwd / found[name])
    for name in ("IMAGE_NAME", "DIBBLE_REFRESH"):  # of one image
        found.pop(name, None)
    return found


def _display(*, as_json: bool) -> Any:  # a Reporter
    from dibble.cli.display import is_terminal
    from dibble.cli.display_json import JsonReporter
    from dibble.cli.matrix_plain import PlainMatrix

    if as_json:
        return JsonReporter(sys.stdout)
    if is_terminal(sys.stdout):
        from dibble.cli.matrix_live import LiveMatrix

        return LiveMatrix(sys.stdout)
    return PlainMatrix(sys.stdout)
