"""Why a step is not taken from the store: its key compared, part by part, with the nearest one that was stored.

What differs is named as the user knows it: a file with the line, a variable with both values, the repository that has
moved on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import Where
from dibble.plan.key import shown_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dibble.plan.step import Key

_LINE_SHOWN = 160

# The parts of a key, in the order in which they tell most about a miss; what is not here comes last.
_ORDER = (
    "script", "file", "list", "setting", "variable", "host file", "arch", "epoch", "tools", "version", "beside", "tree",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing for which a step has to run.

    `part` is the part of the key (`script`, `file bin/x`, `variable DIB_RELEASE`, `tree` …) or what else decides
    (`store`, `refresh`, `repository`). `where` is the file and line that differ, `old` and `new` are both sides where
    they can be shown.
    """

    part: str
    text: str
    where: Where = field(default_factory=Where)
    old: str = ""
    new: str = ""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the texts behind a key are. `now` gives a file's content as it is, by the part's name; `then` the content
    of a digest as it was, None where that was not kept; `place` the path to show for a part's name."""

    now: Callable[[str], bytes | None]
    then: Callable[[str], bytes | None]
    place: Callable[[str], str]


def nearest(key: Key, stored: Sequence[Mapping[str, str]]) -> int | None:
    """Which of the stored keys' parts (newest first) differ least from the key's; None when there are none."""
    shown = shown_parts(key.parts)

    def distance(number: int) -> tuple[int, int]:
        return len(different(stored[number], shown)), number

    return min(range(len(stored)), key=distance, default=None)


def different(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The names of the parts in which two keys differ, the most telling first."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return sorted(names, key=_telling)


def _telling(name: str) -> tuple[int, str]:
    for number, kind in enumerate(_ORDER):
        if name == kind or name.startswith(f"{kind} "):
            return number, name
    return len(_ORDER), name


def reasons(key: Key, old: Mapping[str, str], sources: Sources) -> tuple[Reason, ...]:
    """What makes the key another one than that with the parts `old`, the most telling part first."""
    new = shown_parts(key.parts)
    return tuple(_reason(name, old.get(name), new.get(name), sources) for name in different(old, new))


def _reason(part: str, old: str | None, new: str | None, sources: Sources) -> Reason:
    kind, _, name = part.partition(" ")
    if kind == "host":
        name = part.removeprefix("host file ")
        return Reason(part, f"{name} {_changed(old, new)}", Where(file=name))
    if kind in ("script", "file", "list"):
        return _file_reason(part, name, old, new, sources)
    if kind == "variable":
        return _value_reason(part, f"the variable {name}", old, new)
    if kind == "setting":
        return _value_reason(part, f"the setting {name}", old, new)
    known = {
        "tree": "what the steps before it made is not the same",
        "beside": "what the steps before it left beside the image is not the same",
        "tools": "the tools tree is another",
        "version": "this version of dibble runs steps in another way",
        "epoch": "SOURCE_DATE_EPOCH is another",
        "arch": "the architecture is another",
    }
    return Reason(part, known.get(part, f"{part} is another"), old=old or "", new=new or "")


def _changed(old: str | None, new: str | None) -> str:
    return "is new" if old is None else "is gone" if new is None else "has changed"


def _value_reason(part: str, what: str, old: str | None, new: str | None) -> Reason:
    if old is None or new is None:
        value = new if old is None else old
        return Reason(part, f"{what} {'is new' if old is None else 'is gone'}", old=old or "", new=value or "")
    secret = old.startswith("sha256:") and new.startswith("sha256:")
    return Reason(part, f"{what} has another value", old="" if secret else old, new="" if secret else new)


def _file_reason(part: str, name: str, old: str | None, new: str | None, sources: Sources) -> Reason:
    place = sources.place(part)
    what = place or name or "the script"
    if old is None or new is None:
        return Reason(part, f"{what} {_changed(old, new)}", Where(file=place or None))
    if old[1:] == new[1:] and old[:1] != new[:1]:
        return Reason(
            part, f"{what} {'can' if new.startswith('x') else 'can no longer'} be executed", Where(file=place)
        )
    before, after = sources.then(old), sources.now(part)
    if before is None or after is None:
        return Reason(part, f"{what} has changed", Where(file=place or None))
    line, was, is_now = first_difference(before, after)
    return Reason(part, f"{what} has changed in line {line}", Where(file=place or None, line=line), was, is_now)


def first_difference(old: bytes, new: bytes) -> tuple[int, str, str]:
    """The number of the first line that differs (from 1, in the new text) and both lines, shortened.

    Without such a line, one text is the beginning of the other: then it is the first line that only one has.
    """
    one, two = old.decode("utf-8", "replace").splitlines(), new.decode("utf-8", "replace").splitlines()
    for number in range(max(len(one), len(two))):
        was = one[number] if number < len(one) else ""
        is_now = two[number] if number < len(two) else ""
        if was != is_now or number >= min(len(one), len(two)):
            return number + 1, _short(was), _short(is_now)
    return max(1, len(two)), "", ""  # they differ in line ends only


def _short(line: str) -> str:
    return line if len(line) <= _LINE_SHOWN else f"{line[:_LINE_SHOWN]}…"


def shown_place(path: str | Path | None, cwd: Path) -> str:
    """A path as a user would type it: relative to the working directory where it lies below."""
    if path is None:
        return ""
    with_cwd = Path(path)
    return str(with_cwd.relative_to(cwd)) if with_cwd.is_relative_to(cwd) else str(path)
