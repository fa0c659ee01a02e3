"""`dibble elements`: which elements there are, what one of them does; `new`, `lint` and `test` are beside this file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dibble.cli.elements_lint import lint_elements
from dibble.cli.elements_new import new_element
from dibble.cli.elements_test import test_elements
from dibble.elements.find import (
    Catalogue,
    depends_of,
    find_elements,
    provides_of,
    search_path,
    unusable_because,
)
from dibble.elements.hooks import ignored, merge, scripts
from dibble.elements.phases import PHASES
from dibble.elements.readme import readme_of, summary_of
from dibble.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.elements.model import Element, HookTree
    from dibble.elements.settings import Setting, Settings

WIDEST = 100
"""Columns of a README on a wide terminal: longer lines are hard to read."""


@click.group()
def elements() -> None:
    """Show, search, begin, check and test elements: those on ELEMENTS_PATH and those that come with dibble."""


elements.add_command(new_element)
elements.add_command(lint_elements)
elements.add_command(test_elements)


@elements.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_elements(as_json: bool) -> None:
    """List all elements, with the first sentence of what they say of themselves."""
    _print(list(_catalogue().elements.values()), as_json)


@elements.command()
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def search(words: tuple[str, ...], as_json: bool) -> int:
    """List the elements that have all WORDs in what they are called, provide, take or say; the nearest first.

    The exit status is 1 when there is none.
    """
    wanted = [word.lower() for word in words]
    ranked = []
    for element in _catalogue().elements.values():
        rank = _rank(element, wanted)
        if rank is not None:
            ranked.append((rank, element))
    _print([element for _, element in sorted(ranked, key=lambda found: (found[0], found[1].name))], as_json)
    return 0 if ranked else 1


def _rank(element: Element, words: list[str]) -> int | None:
    """How far an element is from the words, 0 the nearest; None when one of them is nowhere in it."""
    readme = readme_of(element).lower()
    places = (element.name.lower(), " ".join([*_provides(element), summary_of(readme)]).lower(), readme)
    total = 0
    for word in words:
        found = next((number for number, text in enumerate(places, start=1) if word in text), None)
        if found is None:
            return None
        total += 0 if word == element.name else found
    return total


def _print(found: list[Element], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": element.name,
                "path": str(element.path),
                "provides": _provides(element),
                "summary": summary_of(readme_of(element)),
                **({"unusable": reason} if (reason := unusable_because(element)) else {}),
            }
            for element in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(element.name) for element in found), default=0)
    for element in found:
        reason = unusable_because(element)
        text = f"(cannot be used: {reason})" if reason else summary_of(readme_of(element))
        click.echo(f"{element.name:<{width}}  {text}".rstrip())


@dataclass(frozen=True, slots=True)
class _Shown:
    """All that is shown of an element."""

    element: Element
    hides: tuple[str, ...]
    needs: tuple[str, ...]
    needed_by: tuple[str, ...]
    provides: tuple[str, ...]
    settings: Settings
    tree: HookTree

    @property
    def hooks(self) -> dict[str, list[str]]:
        found = {phase.directory: [file.name for file in scripts(self.tree, phase.directory)] for phase in PHASES}
        return {phase: names for phase, names in found.items() if names}

    @property
    def others(self) -> list[str]:
        runs = {name for names in self.hooks.values() for name in names}
        return [name for name in self.tree.files if name not in runs]


@elements.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show what an element needs and provides, the variables that it takes, which scripts it runs, and its README."""
    from dibble.elements.settings import settings_of

    catalogue = _catalogue()
    if name not in catalogue.elements:
        raise unknown("element", name, list(catalogue.elements))
    element = catalogue.elements[name]
    shown = _Shown(
        element,
        tuple(map(str, catalogue.hidden.get(name, ()))),
        tuple(dependency.name for dependency in depends_of(element)),
        tuple(_needed_by(name, catalogue)),
        tuple(_provides(element)),
        settings_of(element),
        merge([element]),
    )
    if as_json:
        click.echo(json.dumps(_as_data(shown), indent=2))
    else:
        _show_text(shown)


def _needed_by(name: str, catalogue: Catalogue) -> Iterable[str]:
    for other in catalogue.elements.values():
        if any(dependency.name == name for dependency in depends_of(other)):
            yield other.name


def _as_data(shown: _Shown) -> dict[str, Any]:
    element = shown.element
    reason = unusable_because(element)
    return {
        "name": element.name,
        "path": str(element.path),
        **({"unusable": reason} if reason else {}),
        "hides": shown.hides,
        "needs": shown.needs,
        "needed_by": shown.needed_by,
        "provides": shown.provides,
        "variables": [
            {
                "name": setting.name,
                "default": setting.default,
                "about": setting.about,
                "file": str(setting.file) if setting.file else None,
                "line": setting.line,
            }
            for setting in shown.settings.taken
        ],
        "sets": {setting.name: setting.default for setting in shown.settings.given},
        "hooks": shown.hooks,
        "files": shown.others,
        "readme": readme_of(element),
    }


def _show_text(shown: _Shown) -> None:
    element = shown.element
    click.echo(f"{element.name}\n  in        {element.path}")
    reason = unusable_because(element)
    if reason:
        click.echo(f"  unusable  {reason}")
    for hidden in shown.hides:
        click.echo(f"  hides     {hidden}")
    click.echo(f"  needs     {' '.join(shown.needs) or '-'}")
    if shown.needed_by:
        click.echo(f"  needed by {' '.join(shown.needed_by)}")
    click.echo(f"  provides  {' '.join(shown.provides) or '-'}")
    _show_column("takes", [_in_words(setting) for setting in shown.settings.taken])
    _show_column("sets", [f"{setting.name}={setting.default}" for setting in shown.settings.given])
    _show_column("runs", [name for names in shown.hooks.values() for name in names])
    _show_column("files", shown.others)
    for note in (note for phase in PHASES for note in ignored(shown.tree, phase.directory)):
        click.echo(f"  note      {note.text}")
    readme = readme_of(element)
    if readme:
        click.echo()
        _show_readme(readme)


def _show_column(title: str, lines: Iterable[str]) -> None:
    for number, line in enumerate(lines):
        click.echo(f"  {title if not number else '':<8}  {line}".rstrip())


def _in_words(setting: Setting) -> str:
    value = f"{setting.name}={setting.default}" if setting.default is not None else setting.name
    return f"{value}  {setting.about}".rstrip()


def _show_readme(readme: str) -> None:
    """As a page on a terminal, as it is written elsewhere."""
    if not sys.stdout.isatty():
        click.echo(readme.rstrip())
        return
    from rich.console import Console

    from dibble.elements.readme import rendered

    console = Console()
    console.print(rendered(readme), width=min(console.width, WIDEST))


def _catalogue() -> Catalogue:
    return find_elements(search_path(os.environ))


def _provides(element: Element) -> list[str]:
    return [provided.name for provided in provides_of(element)]
