"""`dibble plan`: what a build would do, without building."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from dibble.cli.build import own_arguments
from dibble.cli.options import request_options, settings_of
from dibble.recipe.load import requests_of

if TYPE_CHECKING:
    from dibble.plan.plan import Plan
    from dibble.recipe.model import Request


@click.command(
    name="plan",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Show what a build would do, without building.",
)
@request_options("build")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--dot", "form", flag_value="dot", help="Print a graph for Graphviz (dot -Tsvg).")
@click.option("--svg", "form", flag_value="svg", help="Print a drawing of the disks and volumes (SVG).")
@click.option(
    "--resolve/--no-resolve",
    default=True,
    help="Find out the packages of steps that would run; tools and package lists may have to be fetched for it.",
)
@click.option("--all", "show_all", is_flag=True, help="Name every package, and cached steps one by one.")
@click.argument("words", nargs=-1, metavar="ELEMENT... | FILE.yaml")
def plan(words: tuple[str, ...], form: str | None, resolve: bool, show_all: bool, **values: Any) -> int:
    """Show every step of a build in order: where it runs, its key, whether the cache has it and, if not, why.

    With the packages and their sizes, the disk and the outputs. Nothing is built. For several architectures, one plan
    after the other is printed (--json: a list of them).
    """
    requests = requests_of(words, settings_of(values, "build"), os.environ, arguments=own_arguments())
    plans = [plan_for(request, resolve=resolve and form != "svg") for request in requests]
    if form == "json":
        from dibble.plan.plan import plan_data

        found = [plan_data(made) for made in plans]
        click.echo(json.dumps(found if len(found) > 1 else found[0], indent=2))
    elif form == "dot":
        from dibble.cli.plan_dot import dot

        for made in plans:
            click.echo(dot(made))
    elif form == "svg":
        from dibble.cli.plan_svg import svg

        for made in plans:
            click.echo(svg(made))
    else:
        from dibble.cli.plan_text import lines

        for number, made in enumerate(plans):
            if number:
                click.echo()
            for line in lines(made, requests[0].cwd, show_all=show_all):
                click.echo(line)
    return 0


def plan_for(request: Request, *, resolve: bool = True) -> Plan:
    """The plan with all that can be said before building; with `resolve`, the packages of steps that will run."""
    from dibble.events import Events
    from dibble.run.planner import make_plan, with_packages
    from dibble.run.prepare import prepare

    known = prepare(request, Events())
    for note in known.elements.notes:
        if note.level == "warning":
            click.echo(f"WARNING: {note.text}", err=True)
    plan = make_plan(known, details=True).plan
    if not resolve or not plan.to_run:
        return plan
    from dibble.run.foresee import foreseen_or_reason

    foreseen, reason = foreseen_or_reason(known, plan)
    if reason:
        click.echo(f"WARNING: what packages are needed cannot be told: {reason}", err=True)
    return with_packages(known, plan, foreseen)
