"""`dibble elements`: which elements there are, and what one of them does."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from dibble.elements.find import Catalogue, depends_of, find_elements, provides_of, search_path
from dibble.elements.hooks import ignored, merge, scripts
from dibble.elements.phases import PHASES
from dibble.registry import unknown

if TYPE_CHECKING:
    from dibble.elements.model import Element


@click.group()
def elements() -> None:
    """Show the elements on ELEMENTS_PATH and those that come with dibble."""


@elements.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_elements(as_json: bool) -> None:
    """List all elements, with the first sentence of what they say of themselves."""
    catalogue = _catalogue()
    rows = [(element, _summary(_readme(element))) for element in catalogue.elements.values()]
    if as_json:
        found = [
            {"name": element.name, "path": str(element.path), "provides": _provides(element), "summary": summary}
            for element, summary in rows
        ]
        click.echo(json.dumps(found, indent=2))
        return
    width = max((len(element.name) for element, _ in rows), default=0)
    for element, summary in rows:
        click.echo(f"{element.name:<{width}}  {summary}".rstrip())


@elements.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show what an element needs and provides, which scripts it runs, and its README."""
    catalogue = _catalogue()
    if name not in catalogue.elements:
        raise unknown("element", name, list(catalogue.elements))
    element = catalogue.elements[name]
    tree = merge([element])
    needs = [dependency.name for dependency in depends_of(element)]
    hooks = {phase.directory: [file.name for file in scripts(tree, phase.directory)] for phase in PHASES}
    hooks = {phase: names for phase, names in hooks.items() if names}
    runs = [name for names in hooks.values() for name in names]
    others = [name for name in tree.files if name not in runs]
    if as_json:
        found = {
            "name": name,
            "path": str(element.path),
            "hides": [str(path) for path in catalogue.hidden.get(name, ())],
            "needs": needs,
            "provides": _provides(element),
            "hooks": hooks,
            "files": others,
            "readme": _readme(element),
        }
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{name}\n  in        {element.path}")
    for hidden in catalogue.hidden.get(name, ()):
        click.echo(f"  hides     {hidden}")
    click.echo(f"  needs     {' '.join(needs) or '-'}")
    click.echo(f"  provides  {' '.join(_provides(element)) or '-'}")
    for title, names in (("runs", runs), ("files", others)):
        for number, file in enumerate(names):
            click.echo(f"  {title if not number else '':<8}  {file}")
    for note in (note for phase in PHASES for note in ignored(tree, phase.directory)):
        click.echo(f"  note      {note.text}")
    readme = _readme(element)
    if readme:
        click.echo(f"\n{readme.rstrip()}")


def _catalogue() -> Catalogue:
    return find_elements(search_path(os.environ))


def _provides(element: Element) -> list[str]:
    return [provided.name for provided in provides_of(element)]


def _readme(element: Element) -> str:
    """The README of an element, empty without one."""
    for file in sorted(element.path.glob("README*")):
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace")
    return ""


def _summary(readme: str) -> str:
    """The first sentence below the title, on one line."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in readme.replace("\r", "").split("\n\n")]
    for paragraph in paragraphs:
        text = paragraph
        words = paragraph.split(" ")
        # A title and the line under (and perhaps over) it may share a paragraph with the text.
        rules = [number for number, word in enumerate(words) if len(word) > 1 and set(word) <= set("=-~^#*\"'+")]
        if rules:
            text = " ".join(words[rules[-1] + 1 :])
        if text and not text.startswith(".. "):
            return text.partition(". ")[0].rstrip(".")
    return ""
