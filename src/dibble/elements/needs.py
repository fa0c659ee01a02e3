"""Variables that an element cannot do without, said in its file `element-needs` and looked at before anything is built.

Each line holds alternatives, of which one has to be set, and what to do when none is:

    DIB_LOCAL_IMAGE | DIB_CLOUD_IMAGES BASE_IMAGE_FILE: name the image, or where it is

An alternative is one or more variables, each as NAME or as NAME=VALUE. What an environment.d file of the set names may
get its value there, and counts as set.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dibble.elements.readers.documents import read_text
from dibble.errors import ElementError, Where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dibble.elements.model import Element

NEEDS = "element-needs"
_TERM = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:=(\S*))?")


def check_needs(elements: Sequence[Element], environment: Mapping[str, str]) -> None:
    """Raises ElementError for the first need of an element that is not met, or that cannot be read."""
    files = [(element, file) for element in elements if (file := element.path / NEEDS).is_file()]
    if not files:
        return
    texts = [read_text(file, element.name) for element in elements for file in _environment_files(element)]
    named = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", "\n".join(texts)))
    for element, file in files:
        for number, line in enumerate(read_text(file, element.name).splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                _check(line, Where(file=file, line=number, element=element.name), environment, named)


def _environment_files(element: Element) -> list[Path]:
    folder = element.path / "environment.d"
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _check(line: str, where: Where, environment: Mapping[str, str], named: set[str]) -> None:
    terms, colon, hint = line.partition(": ")
    alternatives = [one.split() for one in terms.split("|")]
    wrong = [word for one in alternatives for word in one if not _TERM.fullmatch(word)]
    if not colon or wrong or not all(alternatives):
        raise ElementError(
            f"{NEEDS} is not of the form NAME… | NAME…: what to do",
            hint="separate alternatives by |, and their variables, as NAME or NAME=VALUE, by blanks",
            where=where,
        )
    if not any(all(_holds(word, environment, named) for word in one) for one in alternatives):
        raise ElementError(
            f"the element {where.element} needs {', or '.join(' and '.join(one) for one in alternatives)}",
            hint=hint.strip(),
            where=where,
        )


def _holds(word: str, environment: Mapping[str, str], named: set[str]) -> bool:
    name, equals, value = word.partition("=")
    given = environment.get(name, "")
    return (given == value if equals and given else bool(given)) or (not given and name in named)
