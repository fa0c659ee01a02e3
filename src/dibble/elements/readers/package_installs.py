"""`package-installs.yaml` and `.json`: which packages the elements want in which phase (contract.md 3.4).

An entry's conditions are looked at before anything else, so an entry that does not apply changes nothing; only files
of elements in the set are read (D5, D17 and D18 of contract.md 8 are mended here).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.elements.readers.documents import Document, Items, Scalar, Table, Value, read_document, read_json
from dibble.events import Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.elements.model import Element

FILES = ("package-installs.yaml", "package-installs.json")
PHASES = ("pre-install.d", "install.d", "post-install.d")
KEYS = (
    "phase",
    "uninstall",
    "build-only",
    "installtype",
    "arch",
    "not-arch",
    "dib_python_version",
    "when",
)

Squashed = dict[str, dict[str, list[list[str]]]]
"""phase → "install" or "uninstall" → [package, element] in the order of the elements."""

_WHEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(!=|=)\s*(.*?)\s*", re.DOTALL)
_TRUE = frozenset({"", "true", "yes", "on", "1"})  # empty: the key alone says it
_FALSE = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True)
class _Entry:
    """One map of a file: what is wanted of a package when the conditions hold."""

    package: str
    phase: str
    uninstall: bool
    build_only: bool


def squash(elements: Sequence[Element], environment: Mapping[str, str], arch: str) -> Squashed:
    """What all elements together want, by phase; phases and sections without a request are left out.

    A plain wish to install wins over any wish to remove the same package in the phase, whichever comes first. Raises
    ElementError, with file and line, for what is wrong in a file, and for a `when` about a variable that is not set.
    """
    wanted: dict[str, dict[str, dict[tuple[str, str], None]]] = {}
    kept: set[tuple[str, str]] = set()  # phase, package: installed to stay
    for element in elements:
        for entry in _entries_of(element, environment, arch):
            sections = wanted.setdefault(entry.phase, {"install": {}, "uninstall": {}})
            request = (entry.package, element.name)
            if entry.build_only or not entry.uninstall:
                sections["install"][request] = None
            if entry.build_only or entry.uninstall:
                sections["uninstall"][request] = None
            else:
                kept.add((entry.phase, entry.package))
    squashed: Squashed = {}
    for phase in (phase for phase in PHASES if phase in wanted):
        install = [list(request) for request in wanted[phase]["install"]]
        uninstall = [list(request) for request in wanted[phase]["uninstall"] if (phase, request[0]) not in kept]
        both = {"install": install, "uninstall": uninstall}
        squashed[phase] = {section: requests for section, requests in both.items() if requests}
    return squashed


def check(element: Element) -> tuple[Note, ...]:
    """Warnings about an element's files. Raises ElementError, with file and line, for what is wrong whatever the
    variables say."""
    for document, package, fields in _wishes(element):
        _entry(document, package, fields)
        _check_conditions(document, fields)
    notes = []
    for document in _documents(element):
        for name in document.repeated():
            text = f'"{name.text}" stands there twice, and what is said first of it does not count'
            notes.append(Note(text=f"{document.file}:{name.line}, element {element.name}: {text}", level="warning"))
    return tuple(notes)


def _entries_of(element: Element, environment: Mapping[str, str], arch: str) -> list[_Entry]:
    """The entries of an element's files that apply, in the order of the files."""
    found: list[_Entry] = []
    for document, package, fields in _wishes(element):
        entry = _entry(document, package, fields)
        if _applies(document, fields, element.name, environment, arch):
            found.append(entry)
    return found


def _wishes(element: Element) -> Iterator[tuple[Document, str, dict[str, Value]]]:
    """Every map of an element's files, with its package."""
    for document in _documents(element):
        for package, value in document.table(document.root, "the file").entries:
            for item in value.values if isinstance(value, Items) else (value,):
                yield document, package.text, _fields(document, package, item)


def _documents(element: Element) -> Iterator[Document]:
    for name in FILES:
        file = element.path / name
        if file.exists():
            yield read_document(file, element.name)


def _fields(document: Document, package: Scalar, value: Value) -> dict[str, Value]:
    table = document.table(value, f'what is said of package "{package.text}"')
    for key, _ in table.entries:
        if key.text not in KEYS:
            near = get_close_matches(key.text, KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(KEYS)}"
            document.fail(f'unknown key "{key.text}" for package "{package.text}"', key, hint)
    return {key.text: below for key, below in table.entries}


def _entry(document: Document, package: str, fields: Mapping[str, Value]) -> _Entry:
    phase = "install.d"
    if "phase" in fields:
        phase = document.text(fields["phase"], "phase")
        if phase not in PHASES:
            document.fail(
                f'no packages are installed in phase "{phase}"', fields["phase"], f"phases are: {', '.join(PHASES)}"
            )
    return _Entry(package, phase, _flag(document, fields, "uninstall"), _flag(document, fields, "build-only"))


def _flag(document: Document, fields: Mapping[str, Value], key: str) -> bool:
    """Whether a key is there and does not say no."""
    if key not in fields:
        return False
    value = fields[key]
    word = value.text.lower() if isinstance(value, Scalar) else "a list or map"
    if word not in _TRUE | _FALSE:
        document.fail(f'{key} is "{word}", neither true nor false', value, f"write {key}: true")
    return word in _TRUE


def _applies(
    document: Document, fields: Mapping[str, Value], element: str, environment: Mapping[str, str], arch: str
) -> bool:
    _check_conditions(document, fields)

    def text_of(key: str) -> str:
        return document.text(fields[key], key)

    if "installtype" in fields and text_of("installtype") != install_type(element, environment):
        return False
    if "arch" in fields and arch not in _words(text_of("arch")):
        return False
    if "not-arch" in fields and arch in _words(text_of("not-arch")):
        return False
    if "dib_python_version" in fields and text_of("dib_python_version") != environment.get("DIB_PYTHON_VERSION"):
        return False
    if "when" in fields:
        return all(_holds(document, line, environment) for line in _lines(fields["when"]))
    return True


def _check_conditions(document: Document, fields: Mapping[str, Value]) -> None:
    if "arch" in fields and "not-arch" in fields:
        document.fail("arch and not-arch stand together", fields["not-arch"], "take one of them out")
    for key in ("installtype", "arch", "not-arch", "dib_python_version"):
        if key in fields:
            document.text(fields[key], key)
    for line in _lines(fields["when"]) if "when" in fields else ():
        _parsed(document, line)


def _lines(when: Value) -> tuple[Value, ...]:
    return when.values if isinstance(when, Items) else (when,)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _parsed(document: Document, value: Value) -> tuple[str, str, str]:
    """The variable, the operator and the value of a `when` line."""
    line = document.text(value, "when")
    parsed = _WHEN.fullmatch(line)
    if not parsed:
        document.fail(f'malformed when line "{line}"', value, "write VARIABLE = value or VARIABLE != value")
    variable, operator, wanted = parsed.groups()
    return variable, operator, wanted


def _holds(document: Document, value: Value, environment: Mapping[str, str]) -> bool:
    variable, operator, wanted = _parsed(document, value)
    if variable not in environment:
        document.fail(
            f"when asks for the variable {variable}, which is not set",
            value,
            f"export {variable}, or give it a default in an environment.d file of the element",
        )
    return (environment[variable] == wanted) == (operator == "=")


def install_type(element: str, environment: Mapping[str, str]) -> str:
    """How an element's software is installed: DIB_INSTALLTYPE_<element>, DIB_DEFAULT_INSTALLTYPE, `source`."""
    own = environment.get(f"DIB_INSTALLTYPE_{element.replace('-', '_')}")
    return own or environment.get("DIB_DEFAULT_INSTALLTYPE") or "source"


def read_squashed(file: Path) -> Squashed:
    """What `squash` gave, from the JSON file it was written to. Raises ElementError for anything else."""
    data = read_json(file)
    document = Document(file, "", Table(()))
    wrong = "not a map of phase to install and uninstall to lists of [package, element]"
    if not isinstance(data, dict):
        document.fail(wrong)
    for sections in data.values():
        if not isinstance(sections, dict):
            document.fail(wrong)
        for requests in sections.values():
            if not isinstance(requests, list) or not all(_is_request(request) for request in requests):
                document.fail(wrong)
    return data


def _is_request(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def by_element(requests: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """[package, element] pairs as element → packages, both in the order of their first request."""
    groups: dict[str, dict[str, None]] = {}
    for package, element in requests:
        groups.setdefault(element, {})[package] = None
    return {element: list(packages) for element, packages in groups.items()}
