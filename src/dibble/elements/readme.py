"""What an element's README says: as text, in one sentence, on a terminal, and of each variable.

docutils reads reStructuredText and rich-rst shows it; both are imported only where somebody looks at a README.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils.nodes import Node, document
    from rich.console import RenderableType

    from dibble.elements.model import Element

_RULE = frozenset("=-~^#*\"'+")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]\*?")


def readme_of(element: Element) -> str:
    """The README of an element, empty without one."""
    for file in sorted(element.path.glob("README*")):
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace")
    return ""


def summary_of(readme: str) -> str:
    """The first sentence below the title, on one line."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in readme.replace("\r", "").split("\n\n")]
    for paragraph in paragraphs:
        text = paragraph
        words = paragraph.split(" ")
        # A title and the line under (and perhaps over) it may share a paragraph with the text.
        rules = [number for number, word in enumerate(words) if len(word) > 1 and set(word) <= _RULE]
        if rules:
            text = " ".join(words[rules[-1] + 1 :])
        if text and not text.startswith(".. "):
            return text.partition(". ")[0].rstrip(".")
    return ""


def rendered(readme: str) -> RenderableType:
    """A README for a terminal; markup that cannot be read stays as it is written."""
    from rich_rst import RestructuredText

    shown: RenderableType = RestructuredText(readme, show_errors=False)
    return shown


def documented_variables(readme: str) -> dict[str, str]:
    """The variables that a README explains, in its order, each with the first sentence of that.

    They are the terms of its definition lists, and what rows of its tables begin with: `DIB_RELEASE`, or several of one
    meaning, separated by commas. Of a row the last column explains it.
    """
    from docutils import nodes

    found: dict[str, str] = {}
    for item in _parsed(readme).findall(lambda node: isinstance(node, nodes.definition_list_item | nodes.row)):
        first, *_, last = item.children
        about = _first_sentence(last)
        for name in _names_in(first.astext()):
            found.setdefault(name, about)
    return found


def _names_in(term: str) -> Iterator[str]:
    """The names of a term that holds nothing else: `A, B`, `A=1`, `A: B` of other authors."""
    words = re.split(r"[\s,:]+", term.strip().rstrip(":"))
    names = [word.partition("=")[0] for word in words if word]
    if all(_VARIABLE.fullmatch(name) for name in names):
        yield from names


def _first_sentence(definition: Node) -> str:
    """The definition's first sentence; of one in fields (`:Description: …`), that of its description."""
    from docutils import nodes

    for described in definition.findall(nodes.field):
        name, body = described.children
        if name.astext().strip().lower() == "description":
            return _sentence(body.astext())
    for paragraph in definition.findall(nodes.paragraph):
        return _sentence(paragraph.astext())
    return ""


def _sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".:")


def _parsed(text: str) -> document:
    """Reads no other file and no configuration, and says nothing: the text is the element's author's."""
    from docutils.core import publish_doctree

    silent = {
        "report_level": 5,
        "halt_level": 5,
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "_disable_config": True,
    }
    found: document = publish_doctree(text, settings_overrides=silent)
    return found
