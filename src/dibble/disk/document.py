"""The YAML of a block-device description as values that remember line and column, so that every error can say them.

Words are kept as written: `0700` is a partition type, not a number, and `100%` needs no quotes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dibble.errors import DiskLayoutError, Where

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Word:
    """`text` without quotes; `null` where nothing is written."""

    text: str
    where: Where
    null: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    values: tuple[Value, ...]
    where: Where


@dataclass(frozen=True, slots=True)
class Map:
    """Keys, each once, in the order of the file. `key_places` says where each key itself stands."""

    entries: Mapping[str, Value]
    key_places: Mapping[str, Where]
    where: Where


Value = Word | Items | Map


def read_description(text: str, source: str) -> Value:
    """`text` as values; `source` names the file in errors. Raises DiskLayoutError with the place of a mistake."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        node = YAML(typ="safe", pure=True).compose(text)
        return _Reader(source).value(node) if node else Word("", Where(file=source, line=1), null=True)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Where(source, mark.line + 1, mark.column + 1) if mark else Where(source)
        hint = "indent with blanks, the keys of one node all by the same number"
        raise DiskLayoutError(f"not YAML: {error.problem or error.context}", hint=hint, where=where) from error
    except YAMLError as error:
        reason = str(error).partition("\n")[0]
        raise DiskLayoutError(f"not YAML: {reason}", hint="write plain UTF-8 text", where=Where(source)) from error
    except RecursionError as error:
        hint = "write the nodes one after another, with a base"
        raise DiskLayoutError("nested too deeply", hint=hint, where=Where(source)) from error


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.above: list[int] = []

    def where(self, node: Any) -> Where:  # ruamel.yaml's nodes are untyped, here and below
        return Where(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def value(self, node: Any) -> Value:
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        where = self.where(node)
        if id(node) in self.above:
            raise DiskLayoutError(
                "an alias stands inside what it refers to", hint="move the anchor elsewhere", where=where
            )
        self.above.append(id(node))
        try:
            if isinstance(node, MappingNode):
                return self.map(node, where)
            if isinstance(node, SequenceNode):
                return Items(tuple(self.value(item) for item in node.value), where)
        finally:
            self.above.pop()
        null = node.tag == "tag:yaml.org,2002:null"
        return Word("" if null else node.value, where, null)

    def map(self, node: Any, where: Where) -> Map:
        entries: dict[str, Value] = {}
        places: dict[str, Where] = {}
        merged: list[Map] = []
        for key, content in node.value:
            name, found = self.value(key), self.value(content)
            if key.tag == "tag:yaml.org,2002:merge":
                several = found.values if isinstance(found, Items) else (found,)
                merged += [each for each in several if isinstance(each, Map)]
            elif not isinstance(name, Word):
                raise DiskLayoutError("a key is not a single word", hint="write KEY: VALUE", where=name.where)
            elif name.text in entries:
                hint = f"remove one; the first stands in line {places[name.text].line}"
                raise DiskLayoutError(f'the key "{name.text}" stands here twice', hint=hint, where=name.where)
            else:
                entries[name.text], places[name.text] = found, name.where
        for other in merged:
            for word, content in other.entries.items():
                if word not in entries:
                    entries[word], places[word] = content, other.key_places[word]
        return Map(entries, places, where)
