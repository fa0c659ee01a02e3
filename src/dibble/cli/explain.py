"""`dibble explain`: why a step is not taken from the cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dibble.cli.build import own_arguments
from dibble.cli.options import request_options, settings_of
from dibble.errors import UsageError
from dibble.plan.find_step import step_named
from dibble.recipe.load import cache_dir, requests_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.plan.plan import PlannedStep


@click.command(
    name="explain",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Say why a step is not taken from the cache.",
)
@request_options("build")
@click.option("--last", is_flag=True, help="Explain the last build, instead of one to come.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("words", nargs=-1, metavar="[STEP] ELEMENT... | FILE.yaml")
def explain(words: tuple[str, ...], last: bool, as_json: bool, **values: Any) -> int:
    """Say why steps are not taken from the cache, to the file and line that differ.

    \b
    dibble explain install.d/50-web debian-minimal web   one step of a build to come
    dibble explain debian-minimal web                    all its steps that would run
    dibble explain --last                                what the last build ran, and why
    dibble explain install.d/50-web --last               one step of it
    """
    if last:
        rows = _of_last_build(words, Path(str(values.get("cache_dir") or cache_dir(os.environ))))
    else:
        rows = _of_plan(words, settings_of(values, "build"))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return 0
    following = [row["step"] for row in rows if row["status"] == "follows"] if len(rows) > 1 else []
    for row in rows:
        if row["step"] not in following:
            for line in _lines(row):
                click.echo(line)
    if following:
        click.echo(f"and, unless these leave the tree as it was, what comes after them: {' '.join(following)}")
    if not rows:
        click.echo("every step is in the cache")
    return 0


def _of_plan(words: tuple[str, ...], settings: dict[str, object]) -> list[dict[str, Any]]:
    """What stands for each step asked for: a row as in the log of builds."""
    from dibble.events import Events
    from dibble.run.planner import make_plan
    from dibble.run.prepare import prepare

    wanted = [word for word in words if _is_step(word)]
    rest = tuple(word for word in words if word not in wanted)
    if not rest:
        raise UsageError(
            "nothing to explain a step of",
            hint="name the elements or the recipe as well, as for `dibble build`; or --last for the last build",
        )
    requests = requests_of(rest, settings, os.environ, arguments=own_arguments())
    if len(requests) > 1:
        asked = " or ".join(request.arch for request in requests)
        raise UsageError("one architecture at a time can be explained", hint=f"give -a {asked}")
    (request,) = requests
    plan = make_plan(prepare(request, Events())).plan
    if not wanted:
        return [_row(planned) for planned in plan.to_run]
    steps = {planned.step.id: planned for planned in plan.steps}
    return [_row(steps[step_named(word, list(steps))]) for word in wanted]


def _is_step(word: str) -> bool:
    """Steps are named by phase and script, which no element's name looks like."""
    return ".d/" in word or word.startswith("engine/")


def _row(planned: PlannedStep) -> dict[str, Any]:
    return {
        "step": planned.step.id,
        "element": planned.element,
        "status": planned.status,
        "seconds": planned.seconds,
        "reasons": [[reason.text, str(reason.where), reason.old, reason.new] for reason in planned.reasons],
    }


def _of_last_build(words: tuple[str, ...], cache: Path) -> list[dict[str, Any]]:
    from dibble.store.facts import BuildLog
    from dibble.store.places import Store

    entry = next(BuildLog(Store(cache)).entries(), None)
    if entry is None:
        raise UsageError(f"the cache {cache} knows of no build", hint="build something first")
    rows: list[dict[str, Any]] = entry["steps"]
    if not words:
        return [row for row in rows if row["status"] != "cached"]
    by_step = {row["step"]: row for row in rows}
    return [by_step[step_named(word, list(by_step))] for word in words]


def _lines(row: dict[str, Any]) -> Iterator[str]:
    from dibble.wording import seconds_text

    took = f", {seconds_text(row['seconds'])}" if row["seconds"] is not None else ""
    if row["status"] == "cached":
        yield f"{row['step']}: in the cache"
        return
    verb = "runs" if row["status"] == "run" else "runs unless the steps before it change nothing"
    yield (
        f"{row['step']} (element {row['element']}): {verb}{took}" if row["element"] else f"{row['step']}: {verb}{took}"
    )
    for text, where, old, new in row["reasons"]:
        yield f"  because {text}" + (f"\n    at {where}" if where and where.partition(":")[0] not in text else "")
        if old or new:
            yield f"    - {old}"
            yield f"    + {new}"
