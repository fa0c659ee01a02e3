"""YAML and JSON files as values that remember where they stand, so that an error can say file and line.

Scalars are kept as written; what a word means (a truth value, a number) is for the reader of each format to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dibble.elements.strange import strange
from dibble.errors import ElementError, Where

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Scalar:
    """`text` as written, without quotes; `null` for an empty value. `line` counts from 1; None when not known."""

    text: str
    null: bool = False
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    values: tuple[Value, ...]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A map, in the order of the file. A key that stands twice counts where it stands last, and is `repeated` there."""

    entries: tuple[tuple[Scalar, Value], ...]
    line: int | None = None
    repeated: tuple[Scalar, ...] = ()


Value = Scalar | Items | Table


@dataclass(frozen=True, slots=True)
class Document:
    """A file of an element (or of nobody: `element` empty) and what it holds."""

    file: Path
    element: str
    root: Value

    def fail(self, message: str, value: Value | None = None, hint: str = "") -> NoReturn:
        """Raise an ElementError that points at `value`."""
        line = value.line if value else None
        raise ElementError(message, hint=hint, where=Where(file=self.file, line=line, element=self.element or None))

    def table(self, value: Value, what: str) -> Table:
        """`value` as a map, an empty one where nothing is written; else an error that says what it should be."""
        if isinstance(value, Table):
            return value
        if isinstance(value, Scalar) and value.null:
            return Table((), value.line)
        self.fail(f"{what} is not a map", value)

    def repeated(self) -> Iterator[Scalar]:
        """Keys that stand twice in one map, wherever that is in the document."""
        waiting = [self.root]
        while waiting:
            value = waiting.pop()
            if isinstance(value, Table):
                yield from value.repeated
                waiting += [below for _, below in value.entries]
            elif isinstance(value, Items):
                waiting += value.values

    def text(self, value: Value, what: str) -> str:
        """`value` as text; else an error that says what it should be."""
        if isinstance(value, Scalar) and not value.null:
            return value.text
        self.fail(f"{what} is not a text", value)


def read_text(file: Path, element: str = "") -> str:
    """The file's text. Raises ElementError when it cannot be read or is not UTF-8, with the line of the first byte.

    A named pipe and the like in an element are refused, since nobody writes into them.
    """
    if element and (what := strange(file)):
        raise ElementError(f"{file.name} {what}", where=Where(file=file, line=1, element=element))
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        where = Where(file=file, line=1, element=element or None)
        raise ElementError(f"cannot be read: {error.strerror}", where=where) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        where = Where(file=file, line=line, element=element or None)
        raise ElementError("cannot be read: it is not UTF-8 text", hint="save it as UTF-8", where=where) from error


def read_json(file: Path, element: str = "") -> Any:  # any JSON value; callers check
    """The file as JSON. Raises ElementError with the line and column of a mistake."""
    text = read_text(file, element)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = Where(file=file, line=error.lineno, column=error.colno, element=element or None)
        raise ElementError(f"not JSON: {error.msg}", where=where) from error
    except RecursionError as error:
        raise ElementError("nested too deeply", where=Where(file=file, line=1, element=element or None)) from error


def read_document(file: Path, element: str = "") -> Document:
    """The file as JSON or, when it is not that, as YAML 1.2. Raises ElementError with the place of a mistake."""
    text = read_text(file, element)
    try:
        plain = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return Document(file, element, _from_yaml(text, file, element))
    try:
        # For the lines. JSON is YAML but for the length of keys and some breaks between lines.
        return Document(file, element, _from_yaml(text, file, element))
    except ElementError:
        return Document(file, element, _from_plain(plain))


def _from_plain(value: Any) -> Value:  # any JSON value
    if isinstance(value, dict):
        return Table(tuple((Scalar(key), _from_plain(below)) for key, below in value.items()))
    if isinstance(value, list):
        return Items(tuple(_from_plain(below) for below in value))
    return Scalar("" if value is None else value if isinstance(value, str) else json.dumps(value), null=value is None)


def _from_yaml(text: str, file: Path, element: str) -> Value:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        node = YAML(typ="safe", pure=True).compose(text)
        return _value_of(node, (), {}) if node else Scalar("", null=True, line=1)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Where(
            file=file,
            line=mark.line + 1 if mark else None,
            column=mark.column + 1 if mark else None,
            element=element or None,
        )
        raise ElementError(f"not YAML: {error.problem or error.context}", where=where) from error
    except YAMLError as error:
        reason = str(error).partition("\n")[0]
        raise ElementError(f"not YAML: {reason}", where=Where(file=file, element=element or None)) from error
    except RecursionError as error:
        raise ElementError("nested too deeply", where=Where(file=file, line=1, element=element or None)) from error


def _value_of(node: Any, above: tuple[int, ...], done: dict[int, Value]) -> Value:  # ruamel.yaml's nodes are untyped
    """A node as a value. A node that is used many times (an alias) is converted once; one inside itself is refused."""
    from ruamel.yaml.composer import ComposerError
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if id(node) in done:
        return done[id(node)]
    if id(node) in above:
        raise ComposerError(problem="an alias stands inside what it refers to", problem_mark=node.start_mark)
    line = node.start_mark.line + 1
    below = (*above, id(node))
    value: Value
    if isinstance(node, MappingNode):
        entries: dict[str, tuple[Scalar, Value]] = {}
        written = set[str]()
        repeated: list[Scalar] = []
        for key, content in node.value:
            name = _value_of(key, below, done)
            found = _value_of(content, below, done)
            if key.tag == "tag:yaml.org,2002:merge":
                merged = found.values if isinstance(found, Items) else (found,)
                for table in merged:
                    for entry in table.entries if isinstance(table, Table) else ():
                        entries.setdefault(entry[0].text, entry)
            elif isinstance(name, Scalar):
                if name.text in written:
                    repeated.append(name)
                written.add(name.text)
                entries[name.text] = (name, found)
            else:
                raise ComposerError(problem="a key is not a single word", problem_mark=key.start_mark)
        value = Table(tuple(entries.values()), line, tuple(repeated))
    elif isinstance(node, SequenceNode):
        value = Items(tuple(_value_of(item, below, done) for item in node.value), line)
    else:
        null = node.tag == "tag:yaml.org,2002:null"
        value = Scalar("" if null else node.value, null, line)
    done[id(node)] = value
    return value
