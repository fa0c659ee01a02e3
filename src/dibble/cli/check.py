"""`dibble check`: packages of an image that nobody asked for or needs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from dibble.cli.build import own_arguments
from dibble.cli.options import request_options, settings_of
from dibble.recipe.load import requests_of
from dibble.wording import bytes_text, counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.run.check import Found, Report


@click.command(
    name="check",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="List packages of an image that nobody asked for or needs.",
)
@request_options("build")
@click.option(
    "--limit",
    metavar="SIZE",
    help="Return 1 when they take more than SIZE together, as 20MB; a bare number counts in MiB.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("words", nargs=-1, metavar="ELEMENT... | FILE.yaml")
def check(words: tuple[str, ...], *, limit: str | None, as_json: bool, **values: Any) -> int:
    """List packages of an image that nobody asked for and nothing needs, with the room that they take.

    A package is needed when an element, -p or the recipe asked for it, when the system does not work without it, or
    when such a package depends on it. Steps that are not in the store are run first; no image is written.

    \b
    dibble check debian-minimal web
    dibble check --limit 20MB image.yaml       for a pipeline
    """
    from dibble.cli.display import reporters_for
    from dibble.errors import DibbleError, UsageError
    from dibble.events import Events
    from dibble.run.check import check as run_check

    most = None if limit is None else _size(limit)
    requests = requests_of(words, settings_of(values, "build"), os.environ, arguments=own_arguments())
    if len(requests) > 1:
        asked = " or ".join(request.arch for request in requests)
        raise UsageError("one architecture at a time can be checked", hint=f"give -a {asked}")
    (request,) = requests
    reporters = reporters_for(request, stream=sys.stderr, shows_cached=False)
    events = Events(reporters)
    try:
        report = run_check(request, events)
    except DibbleError as error:
        for reporter in reporters:
            reporter.failed(error)
        raise
    finally:
        events.close()
    if as_json:
        click.echo(json.dumps(_data(report), indent=2))
    else:
        for line in _lines(report):
            click.echo(line)
    return int(most is not None and report.found_size > most)


def _size(text: str) -> int:
    from dibble.errors import UsageError
    from dibble.recipe.kinds import MIB, size_in_bytes

    try:
        return 0 if text.strip() == "0" else size_in_bytes(text, MIB)
    except ValueError as error:
        raise UsageError(f"--limit {error}") from None


def _data(report: Report) -> dict[str, Any]:
    return {
        "packages": report.packages,
        "bytes": report.size,
        "unneeded": [
            {
                "package": one.unneeded.package.name,
                "version": one.unneeded.package.version,
                "architecture": one.unneeded.package.arch,
                "bytes": one.size,
                "why": one.unneeded.why,
                "of": list(one.unneeded.of),
            }
            for one in report.found
        ],
    }


def _lines(report: Report) -> Iterator[str]:
    width = max((len(one.unneeded.package.name) for one in report.found), default=0)
    for one in report.found:
        yield f"{bytes_text(one.size):>7}  {one.unneeded.package.name:{width}}  {_why(one)}"
    total = f"{counted(report.packages, 'package')}, {bytes_text(report.size)}"
    if report.found:
        count = len(report.found)
        yield f"{count} of {total}, could go: {bytes_text(report.found_size)}"
    else:
        yield f"{total}: each one is asked for or needed"


def _why(one: Found) -> str:
    if one.unneeded.why == "base":
        return "came with the first packages of the system; nothing needs it"
    if one.unneeded.why == "recommended":
        return f"wanted by {', '.join(one.unneeded.of)}, which would work without it"
    return "nothing needs it any more"
