"""`dibble elements new`: begins an element that builds as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from dibble.elements.find import find_elements, search_path
from dibble.elements.skeleton import write_skeleton

DEFAULT_DIRECTORY = "elements"


@click.command("new")
@click.argument("name")
@click.option(
    "-d",
    "--directory",
    metavar="DIRECTORY",
    help="Where to put it.  [the first entry of ELEMENTS_PATH, else elements]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new_element(name: str, directory: str | None, as_json: bool) -> None:
    """Begin an element: a directory with a script, a variable, a package, documentation and a test.

    It resolves, passes lint and builds as it is.
    """
    path = search_path(os.environ)
    place = Path(directory) if directory else path[0] if len(path) > 1 else Path(DEFAULT_DIRECTORY)
    hidden = find_elements(path).elements.get(name)
    files = write_skeleton(name, place)
    if as_json:
        found = {"name": name, "path": str(place / name), "files": list(map(str, files))}
        click.echo(json.dumps(found | ({"hides": str(hidden.path)} if hidden else {}), indent=2))
        return
    for file in files:
        click.echo(file)
    if hidden:
        click.echo(f"note: it is taken instead of {hidden.path} where it is earlier on ELEMENTS_PATH", err=True)
    on_path = any(entry.resolve() == place.resolve() for entry in path)
    if not on_path:
        click.echo(f"next: export ELEMENTS_PATH={place.resolve()}", err=True)
    click.echo(f"next: dibble elements test {name}", err=True)
