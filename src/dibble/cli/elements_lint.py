"""`dibble elements lint`: the rules of dib-lint for elements of the search path, with file and line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dibble.cli.dib_lint import IgnoredByGit, ignored_rules, python_problems
from dibble.elements.find import BUILT_IN_ELEMENTS, find_elements, search_path
from dibble.elements.lint import lint_element
from dibble.errors import UsageError
from dibble.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.elements.find import Catalogue
    from dibble.elements.model import Element


@click.command("lint")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lint_elements(names: tuple[str, ...], as_json: bool) -> int:
    """Check elements, without names all on ELEMENTS_PATH; the exit status is 1 when something is against the rules.

    The rules are those of dib-lint, and can be switched off in the same ways. Besides, everything in element-deps has
    to be there.
    """
    catalogue = find_elements(search_path(os.environ))
    chosen = chosen_elements(names, catalogue)
    skip = IgnoredByGit()
    rules = ignored_rules()
    findings = [
        (element, finding)
        for element in chosen
        for finding in lint_element(element, catalogue, ignored_rules=rules, skip=skip, python_problems=python_problems)
    ]
    if as_json:
        rows = [
            {
                "element": element.name,
                "file": str(finding.file),
                "line": finding.line,
                "rule": finding.rule or None,
                "message": finding.message,
            }
            for element, finding in findings
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        for _, finding in findings:
            rule = f" [{finding.rule}]" if finding.rule else ""
            click.echo(f"{_near(finding.file)}{f':{finding.line}' if finding.line else ''}: {finding.message}{rule}")
        checked = f"{len(chosen)} element{'s' if len(chosen) != 1 else ''}"
        click.echo(f"{checked}: {len(findings) or 'nothing'} against the rules", err=True)
    return 1 if findings else 0


def chosen_elements(names: Sequence[str], catalogue: Catalogue) -> list[Element]:
    """The named elements, in their order; without names all but those that come with dibble.

    Raises UsageError for an unknown name, and where there is none to choose.
    """
    for name in names:
        if name not in catalogue.elements:
            raise unknown("element", name, list(catalogue.elements))
    if names:
        return [catalogue.elements[name] for name in dict.fromkeys(names)]
    own = [element for element in catalogue.elements.values() if not element.path.is_relative_to(BUILT_IN_ELEMENTS)]
    if not own:
        raise UsageError("there is no element on ELEMENTS_PATH", hint="name elements, or set ELEMENTS_PATH")
    return own


def _near(file: Path) -> Path:
    """The file as seen from the current directory, when it is below."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
