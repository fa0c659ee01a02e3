"""What a node of a block-device description is, as written, and what a plug-in makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn, Protocol, TypeVar

from dibble.disk.document import Items, Map, Value, Word
from dibble.disk.model import Defaults, Device, Filesystem, FstabEntry, Image, Mount, Partition, Raw, Table
from dibble.errors import DiskLayoutError, Where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.disk.volumes.base import Volume

NodeValue = Image | Table | Raw | Filesystem | Mount | FstabEntry
Found = TypeVar("Found", bound=NodeValue | Partition | Device)


@dataclass(frozen=True, slots=True)
class Members:
    """A list of parts in a node, under the key `word`; each has a name, a base, `keys`, and nodes nested in it.

    What a part's base is: `node` is the node itself, as for a partition; `outside` a device of another node, which then
    stands for the node's own base, as for a physical volume; `inside` other parts, which the plug-in looks after.
    """

    word: str
    keys: tuple[str, ...]
    base: Literal["node", "outside", "inside"] = "node"

    @property
    def singular(self) -> str:
        return self.word.removesuffix("s")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """`level` orders the nodes: a base is of a lower level, or of the same where both are 1. `keys` besides `name` and
    `base`; `device_keys` too name devices that it stands on. With `several`, `base` may be a list. With `beside`, a
    partition table or nodes of the same kind may stand on the base too.
    """

    name: str
    level: int
    keys: tuple[str, ...] = ()
    members: tuple[Members, ...] = ()
    device_keys: tuple[str, ...] = ()
    several: bool = False
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A node as written, with its nested nodes taken out. `base` is the first one, empty when none is known.

    `stands_on` are all devices, or other nodes, that it needs for itself.
    """

    kind: str
    name: str
    base: str
    keys: Map
    where: Where
    members: tuple[Entry, ...] = ()
    stands_on: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}"'

    def place_of(self, key: str) -> Where:
        """Where the value of a key stands; the node itself when it lacks the key."""
        found = self.keys.entries.get(key)
        return found.where if found else self.where

    def refuse(self, reason: str, hint: str, key: str = "") -> NoReturn:
        """Raise a DiskLayoutError that points at the node, or at one of its keys."""
        raise DiskLayoutError(f"{self} {reason}", hint=hint, where=self.place_of(key))

    def is_word(self, key: str) -> bool:
        """Whether a key's value is one word, and no list or map."""
        return isinstance(self.keys.entries.get(key), Word)

    def text(self, key: str) -> str | None:
        """What a key says; None when the node lacks it."""
        value = self.keys.entries.get(key)
        if value is None:
            return None
        if not isinstance(value, Word):
            self.refuse(f'has a {kind_of(value)} as "{key}"', f'write "{key}: VALUE" in one line', key)
        if not value.text.strip():
            self.refuse(f'says nothing for "{key}"', f'write a value behind "{key}:", or remove the line', key)
        return value.text

    def needed(self, key: str, example: str) -> str:
        """What a key says; an error when the node lacks it."""
        value = self.text(key)
        if value is None:
            self.refuse(f'needs "{key}"', f'add "{key}: {example}"')
        return value

    def number(self, key: str, default: int) -> int:
        """What a key says as a whole number from 0 on."""
        value = self.text(key)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit()):
            self.refuse(f'has "{value}" as "{key}"', f'write a number such as "{key}: {default}"', key)
        return int(value)

    def words(self, key: str) -> tuple[str, ...]:
        """A list of words; an empty one when the node lacks the key."""
        value = self.keys.entries.get(key)
        if value is None:
            return ()
        words = value.values if isinstance(value, Items) else ()
        found = tuple(word.text for word in words if isinstance(word, Word) and not word.null)
        if not isinstance(value, Items) or len(found) != len(words):
            self.refuse(f'needs a list of words as "{key}"', f'write "{key}: [WORD, WORD]"', key)
        return found


@dataclass(slots=True)
class Context:
    """What a node may know of the others: all `kinds` by name, and the values of those of lower levels.

    `root` is the name of the file system that is mounted at `/`, whatever it is called.
    """

    defaults: Defaults
    root: str
    kinds: Mapping[str, str]
    values: dict[str, NodeValue | Partition | Device] = field(default_factory=dict)
    volumes: list[Volume] = field(default_factory=list)

    def base(self, entry: Entry, *allowed: type[Found]) -> Found:
        """The value of a node's base. Raises DiskLayoutError when there is none, or it is no such thing."""
        return self.named(entry, "base", entry.base, *allowed)

    def device(self, entry: Entry, key: str = "base", name: str = "") -> str:
        """The name of what a node stands on, checked to be a device: its base, or the `name` that a key of it gives."""
        return self.named(entry, key, name or entry.base, Partition, Image, Device).name

    def named(self, entry: Entry, key: str, name: str, *allowed: type[Found]) -> Found:
        """The value of the node `name`, which a key of `entry` gives. Raises DiskLayoutError as `base` does."""
        wanted = " or ".join(kind.__name__.lower() for kind in allowed)
        what = "base" if key == "base" else f'"{key}"'
        if not name:
            entry.refuse(f'has no "{key}"', f'nest it in a {wanted}, or add "{key}: NAME" with the name of one')
        if name not in self.kinds:
            hint = nearest(name, list(self.kinds)) or f"known are: {', '.join(self.kinds)}"
            entry.refuse(f'has the {what} "{name}", which does not exist', hint, key)
        found = self.values.get(name)
        if not isinstance(found, allowed):
            reason = f'has the {what} "{name}", which is a {self.kinds[name]} and no {wanted}'
            entry.refuse(reason, f'write the name of a {wanted} as "{key}"', key)
        return found

    def all(self, kind: type[Found]) -> list[Found]:
        """The values of one type that are known by now."""
        return [value for value in self.values.values() if isinstance(value, kind)]


class Node(Protocol):
    """A plug-in: its class is registered in `registry.py` under the word that stands in descriptions."""

    info: ClassVar[NodeInfo]

    @staticmethod
    def parse(entry: Entry, context: Context) -> NodeValue | Volume:
        """The value of a node. Its keys are known ones, its name is unique. Raises DiskLayoutError."""
        ...


def nearest(word: str, known: Sequence[str]) -> str:
    """The question whether one of the nearest words was meant; empty when none is near."""
    near = get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def kind_of(value: Value) -> str:
    """What stands there, in a word, for errors."""
    if isinstance(value, Map):
        return "map"
    return "list" if isinstance(value, Items) else "word"
