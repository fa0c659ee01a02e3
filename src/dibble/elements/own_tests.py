"""The test-elements of an element: each is built together with it (contract.md 3.1, 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dibble.elements.find import depends_of, find_elements, provides_of
from dibble.elements.resolve import OPERATING_SYSTEM
from dibble.errors import ElementError, Where

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.elements.find import Catalogue
    from dibble.elements.model import Element

DIRECTORY = "test-elements"
DEFAULT_FORMATS = "tar"
SHOULD_FAIL = "tmp/dib-test-should-fail"
"""In the target: a build that makes this file has to fail, one that does not has to succeed."""


@dataclass(frozen=True, slots=True)
class ElementTest:
    """A test-element of `directory`. `words` are to be built, `formats` is the text for `-t`."""

    element: str
    name: str
    directory: Path
    words: tuple[str, ...]
    formats: str
    kind: Literal["disk", "ramdisk"]

    @property
    def id(self) -> str:
        return f"{self.element}/{self.name}"


def tests_of(element: Element, catalogue: Catalogue, system: str) -> tuple[ElementTest, ...]:
    """The tests of an element, by name. `system` is added to those that lead to no operating system otherwise.

    Raises ElementError for an `element-type` that is none.
    """
    directory = element.path / DIRECTORY
    if not directory.is_dir():
        return ()
    found = []
    own = find_elements([directory])
    elements = {**catalogue.elements, **own.elements}
    for name, test in own.elements.items():
        words: tuple[str, ...] = (element.name, name)
        if not _leads_to_a_system(words, elements):
            words = (system, *words)
        formats = _first_line(test.path / "test-output-formats") or DEFAULT_FORMATS
        found.append(ElementTest(element.name, name, directory, words, formats, _kind(test)))
    return tuple(found)


def _kind(test: Element) -> Literal["disk", "ramdisk"]:
    file = test.path / "element-type"
    text = _first_line(file) or "disk"
    if text == "disk":
        return "disk"
    if text == "ramdisk":
        return "ramdisk"
    raise ElementError(
        f'"{text}" is no type of a test', hint="write disk or ramdisk", where=Where(file, 1, element=test.name)
    )


def _first_line(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ElementError("cannot be read as text", where=Where(file)) from error
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _leads_to_a_system(words: tuple[str, ...], elements: dict[str, Element]) -> bool:
    seen: set[str] = set()
    waiting = list(words)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in elements:
            continue
        seen.add(name)
        if any(provided.name == OPERATING_SYSTEM for provided in provides_of(elements[name])):
            return True
        waiting.extend(dependency.name for dependency in depends_of(elements[name]))
    return False
