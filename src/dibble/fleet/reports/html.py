"""A run as one page of HTML that needs no network: docs/matrix-results.md shows what is on it.

The page's table stands in it as such and can be read without a script; the script filters, sorts and shows details out
of JSON that is embedded. Its policy (CSP) lets it load nothing and run this one script only, whatever a log holds.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dibble.fleet.compare import ChangeKind
from dibble.fleet.model import Outcome
from dibble.fleet.reports import headline, page_data
from dibble.fleet.reports.plain import one_line
from dibble.fleet.reports.words import by_place, lines_and_columns, notes_of
from dibble.wording import bytes_text, counted, seconds_text

if TYPE_CHECKING:
    from dibble.fleet.history import RecordedRun
    from dibble.fleet.model import MatrixRun
    from dibble.fleet.reports.page_data import Past

FILE_NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
_NEVER_RAN = {"skipped": 1, "unsupported pair": 2}
"""These notes stand behind those of failures."""
_SEEN = 4.0
"""The least height of a share in the chart, in percent: one failure among 200 is still seen."""


def run_as_html(run: MatrixRun, directory: Path, past: Past) -> str:
    """The whole page. Logs are found in `directory`; links to them are relative to it."""
    changes = page_data.page_changes(run, past)
    notes = notes_of(run)
    cells = page_data.cells_of(run, past, changes, notes)
    runs = page_data.all_runs(run, past)
    targets, hosts = lines_and_columns(run)
    verdict, mark = headline.verdict_of(run, changes)
    numbers = {(cell["target"], cell["host"], cell["name"]): number for number, cell in enumerate(cells)}
    places = {
        place: [numbers[one_line(one.cell.target), one_line(one.cell.host), one_line(one.cell.name)] for one in results]
        for place, results in by_place(run).items()
    }
    style, script = _file("matrix.css"), _file("matrix.js")
    return (
        _environment()
        .get_template("matrix.html.j2")
        .render(
            run=run,
            style=Markup(style),  # noqa: S704 - our own files
            script=Markup(script),  # noqa: S704
            style_digest=_digest(style),
            script_digest=_digest(script),
            verdict=verdict,
            mark=mark,
            tiles=headline.tiles_of(run, past.previous),
            notes=sorted(notes.all, key=lambda note: (_NEVER_RAN.get(note.kind, 0), -note.cells)),
            most=max((note.cells for note in notes.all), default=1),
            changes=[(kind, [one for one in changes if one.kind is kind]) for kind in ChangeKind],
            previous=past.previous,
            bars=[_bar(known, runs) for known in runs],
            longest=seconds_text(max(known.seconds for known in runs)),
            cells=cells,
            places=places,
            targets=targets,
            hosts=hosts,
            data={"cells": cells, "runs": [_known(known) for known in runs], "words": page_data.WORDS},
            logs=page_data.logs_of(run, directory),
            words=page_data.WORDS,
            began=page_data.time_text(run.began),
        )
    )


def _known(run: RecordedRun) -> dict[str, str]:
    return {"id": one_line(run.id), "began": page_data.time_text(run.began)}


def _bar(run: RecordedRun, runs: list[RecordedRun]) -> dict[str, object]:
    """A run in the chart of runs: shares of its height, in percent of the largest run, and what it says."""
    most = max(sum(one.outcomes.values()) for one in runs) or 1
    longest = max(one.seconds for one in runs) or 1
    succeeded = run.outcomes.get(Outcome.SUCCESS, 0)
    failed = run.outcomes.get(Outcome.FAILED, 0)
    other = sum(run.outcomes.values()) - succeeded - failed
    told = ", ".join(f"{number} {outcome}" for outcome, number in run.outcomes.items())
    high = {"failed": failed and max(_SEEN, 100 * failed / most), "other": other and max(_SEEN, 100 * other / most)}
    whole = 100 * sum(run.outcomes.values()) / most
    return {
        "success": round(max(0.0, whole - high["failed"] - high["other"]), 2) if succeeded else 0,
        "failed": round(high["failed"], 2),
        "other": round(high["other"], 2),
        "seconds": round(100 * run.seconds / longest, 2),
        "id": one_line(run.id),
        "began": page_data.time_text(run.began),
        "told": told or "no cells",
        "took": seconds_text(run.seconds),
        "size": bytes_text(run.size),
    }


@cache
def _file(name: str) -> str:
    return (TEMPLATES / name).read_text()


def _digest(text: str) -> str:
    """As a Content-Security-Policy names what is inline (CSP 3, 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": seconds_text,
        "bytes": bytes_text,
        "line": one_line,
        "link": page_data.cell_link,
    }
    environment.globals["counted"] = counted
    return environment
