"""The table of a run on standard output: in colours and as wide as a terminal, or as plain text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dibble.fleet.model import MatrixRun


def show_table(run: MatrixRun) -> None:
    from dibble.cli.display import is_terminal
    from dibble.fleet.reports.table import RunTable, table_text

    if is_terminal(sys.stdout):
        from rich.console import Console

        Console().print(RunTable(run))
    else:
        click.echo(table_text(run), nl=False)
