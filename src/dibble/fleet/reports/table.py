"""The table of targets (down) and hosts (across), with a note for each cause: in a terminal and as plain text.

|fedora-44|success|-   1 -|
-   1 - mirror mid-sync: ftp.debian.org lists packages that it does not have yet
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dibble.fleet.model import Outcome
from dibble.fleet.reports.plain import one_line
from dibble.fleet.reports.words import by_place, lines_and_columns, notes_of
from dibble.fleet.summary import sentence_of, summary_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import ConsoleOptions, RenderResult

    from dibble.fleet.model import CellResult, MatrixRun
    from dibble.fleet.reports.words import Note, Notes

STYLES = {
    Outcome.SUCCESS: "green",
    Outcome.FAILED: "bold red",
    Outcome.SKIPPED: "yellow",
    Outcome.UNSUPPORTED: "dim",
    Outcome.RUNNING: "cyan",
    Outcome.WAITING: "dim",
}
FLAKY = "success*"
NEVER_ASKED = "."
"""At a pair that the matrix leaves out."""
_LEGEND = ((FLAKY, "passed on a retry"), ("(…)", "allowed to fail"))
_PADDING = 3
"""What a column takes besides its text: a bar and a blank at each side."""


def word_of(result: CellResult, note: Note | None) -> str:
    """What stands in the table: `success`, `failed`, or the number of the note that says why not."""
    if result.flaky:
        return FLAKY
    word = result.outcome.value if note is None else f"- {note.number:3} -"
    return f"({word})" if result.outcome is Outcome.FAILED and result.cell.allow_failure else word


def table_text(run: MatrixRun) -> str:
    """The whole table as plain text for a pipe or a file, as wide as it gets, ending with a newline."""
    rows, notes = _rows(run)
    widths = [max(cell_len(cell.plain) for cell in column) for column in zip(*rows, strict=True)]
    rule = "+" + "+".join("-" * width for width in widths) + "+"
    lines = [rule]
    for row in rows:
        filled = (cell.plain + " " * (width - cell_len(cell.plain)) for cell, width in zip(row, widths, strict=True))
        lines += [f"|{'|'.join(filled)}|", rule]
    lines += [line.plain for line in _below(run, notes)]
    return "\n".join(lines) + "\n"


class RunTable:
    """The table for a terminal, with colours. Hosts that do not fit beside each other go into tables below."""

    def __init__(self, run: MatrixRun) -> None:
        self.run = run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows, notes = _rows(self.run)
        for columns in _parts(rows, options.max_width):
            table = Table(header_style="bold", show_edge=False, pad_edge=False)
            for number, column in enumerate((0, *columns)):
                table.add_column(rows[0][column], no_wrap=bool(number), overflow="fold")
            for row in rows[1:]:
                table.add_row(*(row[column] for column in (0, *columns)))
            yield table
            yield ""
        yield from _below(self.run, notes)


def table_for(run: MatrixRun, width: int) -> str:
    """`RunTable` as it looks in a terminal of `width` columns, without colours."""
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, legacy_windows=False).print(RunTable(run))
    return file.getvalue()


def _rows(run: MatrixRun) -> tuple[list[list[Text]], Notes]:
    """The table, heads first, and the notes that it points to."""
    places, notes = by_place(run), notes_of(run)
    targets, hosts = lines_and_columns(run)
    rows = [[Text(one_line(head)) for head in ("", *hosts)]]
    for target in targets:
        row = [Text(one_line(target))]
        for host in hosts:
            results = places.get((target, host))
            words = [Text(word_of(one, notes.of.get(one.cell.name)), STYLES[one.outcome]) for one in results or ()]
            row.append(Text("/").join(words) if words else Text(NEVER_ASKED, "dim"))
        rows.append(row)
    return rows, notes


def _parts(rows: list[list[Text]], width: int) -> Iterator[range]:
    """The columns of each table: as many as fit beside the targets into `width`, at least one."""
    widths = [max(cell_len(cell.plain) for cell in column) for column in zip(*rows, strict=True)]
    first = 1
    while first < len(widths):
        used, end = widths[0] + _PADDING + widths[first], first + 1
        while end < len(widths) and used + _PADDING + widths[end] <= width:
            used += _PADDING + widths[end]
            end += 1
        yield range(first, end)
        first = end


def _below(run: MatrixRun, notes: Notes) -> Iterator[Text]:
    """The notes, what the marks mean that occur, and the sums."""
    styles = {
        notes.of[result.cell.name]: STYLES[result.outcome] for result in run.results if result.cell.name in notes.of
    }
    for note in notes.all:
        yield Text.assemble((f"- {note.number:3} -", styles[note]), f" {note}")
    used = (
        any(result.flaky for result in run.results),
        any(result.outcome is Outcome.FAILED and result.cell.allow_failure for result in run.results),
    )
    for (mark, meaning), occurs in zip(_LEGEND, used, strict=True):
        if occurs:
            yield Text(f"{mark} {meaning}")
    yield Text(sentence_of(summary_of(run)))
