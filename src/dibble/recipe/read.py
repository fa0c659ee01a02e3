"""A recipe file → what it asks for. Every complaint names file, line, column and, for a wrong word, the nearest one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from dibble.errors import RecipeError, Where
from dibble.recipe.merge import Asked
from dibble.recipe.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]  # keys and indices from the top of the document


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in the file; line and column count from 1, `index` characters from 0."""

    line: int
    column: int
    index: int


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed recipe: plain data, where each part begins, where keys stand, and the part's end index."""

    text: str
    data: dict[str, Any]
    starts: dict[Place, Mark]
    ends: dict[Place, int]
    keys: dict[Place, Mark]
    aliased: bool


def read_recipe(path: Path, *, shown: str) -> Asked:
    """What the recipe at `path` asks for; `shown` names it in messages.

    Relative directories in it (`elements-path`) count from the recipe's own directory. Raises RecipeError.
    """
    return read_as(path, shown, preset=False)[0]


def read_as(path: Path, shown: str, *, preset: bool) -> tuple[Asked, dict[str, Any]]:
    """As `read_recipe`; with `preset`, the file may have a preset's own keys too, whose values are the second part."""
    document = parse(text_of(path, shown), shown)
    from pydantic import ValidationError

    from dibble.recipe import schema

    model = schema.PresetFile if preset else schema.Recipe
    try:
        recipe: Any = model.model_validate(document.data, by_alias=True, by_name=False)
    except ValidationError as error:
        raise complaint(error.errors(), document, shown, schema.KEYS) from error
    own = {key: getattr(recipe, key) for key in schema.PRESET_KEYS} if preset else {}
    text = _block_device_text(document) if recipe.block_device is not None else ""
    return replace(asked_of(recipe, path.parent, shown, block_device=text), default_name=path.stem), own


def asked_of(recipe: Any, folder: Path, shown: str, *, block_device: str = "") -> Asked:
    """What a validated recipe asks for; directories in it count from `folder`. `block_device` is its disk as text."""
    settings = {
        option.key: getattr(recipe, option.key)
        for option in OPTIONS
        if option.recipe_key and getattr(recipe, option.key) is not None
    }
    if "element_path" in settings:
        settings["element_path"] = tuple(str(folder / entry) for entry in settings["element_path"])
    if block_device:
        settings["block_device_config"] = block_device
    return Asked(
        elements=recipe.elements,
        settings=settings,
        environment=recipe.environment,
        block_device_source=shown if block_device else "",
    )


def text_of(path: Path, shown: str, what: str = "recipe") -> str:
    """The text of a file of this kind. Raises RecipeError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "an element's name does not end in .yaml" if what == "recipe" else "check the path"
        raise RecipeError(f"there is no {what} {shown}", hint=hint) from error
    except OSError as error:
        raise RecipeError(f"the {what} {shown} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecipeError(
            "this is not UTF-8 text", hint="save the file as UTF-8", where=Where(file=shown, line=line)
        ) from error


def parse(text: str, shown: str, what: str = "recipe", example: str = "elements: [debian-minimal, vm]") -> Document:
    """Parse YAML and keep positions. Raises RecipeError for what is not YAML or not a map.

    `what` names the kind of file in messages, `example` is how one begins.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        data = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Where(file=shown, line=mark.line + 1, column=mark.column + 1) if mark else Where(file=shown)
        problem = " ".join((error.problem or error.context or "not valid YAML").split())
        raise RecipeError(
            f"this is not valid YAML: {problem}", hint="check indentation and quotes", where=where
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split()) or "too deep"
        raise RecipeError(f"this is not valid YAML: {problem}", where=Where(file=shown)) from error
    if not isinstance(data, dict):
        found = "a list" if isinstance(data, list) else "empty" if data is None else "a single word"
        raise RecipeError(
            f"a {what} is a map of keys, this is {found}",
            hint=f'begin with, for example, "{example}"',
            where=Where(file=shown, line=1, column=1),
        )
    document = Document(text, data, {}, {}, {}, aliased=False)
    return _with_positions(node, document, shown, what)


def _with_positions(root: Any, document: Document, shown: str, what: str) -> Document:  # an untyped node
    """The document with positions, and with numbers as they are written: 12.10 is a release, not 12.1."""
    seen: set[int] = set()
    aliased = False

    def walk(node: Any, place: Place, data: Any) -> None:
        nonlocal aliased
        document.starts[place] = _mark(node)
        document.ends[place] = node.end_mark.index
        if id(node) in seen:
            aliased = True
            return
        seen.add(id(node))
        if isinstance(node.value, str):
            return
        for index, child in enumerate(node.value):
            key, value = (child[0].value, child[1]) if isinstance(child, tuple) else (index, child)
            if isinstance(child, tuple):
                document.keys[*place, str(key)] = _mark(child[0])
            below = _child(data, key)
            if isinstance(value.value, str) and _is_kept_as_written(below, place):
                data[key] = below = value.value
            walk(value, (*place, key if isinstance(key, int) else str(key)), below)

    for key, _ in root.value:
        if not isinstance(key.value, str) or not key.tag.endswith(":str"):
            mark = _mark(key)
            raise RecipeError(
                f"a key of a {what} is a word", where=Where(file=shown, line=mark.line, column=mark.column)
            )
    walk(root, (), document.data)
    return replace(document, aliased=aliased)


def _mark(node: Any) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1, node.start_mark.index)


_ABSENT = object()


def _child(data: Any, key: object) -> object:
    """What stands below a key or index; keys that are no plain text, and merged ones, are not looked for."""
    if isinstance(data, dict) and isinstance(key, str):
        return data.get(key, _ABSENT)
    return data[key] if isinstance(data, list) and isinstance(key, int) else _ABSENT


def _is_kept_as_written(value: object, place: Place) -> bool:
    """Numbers wherever text or a size may stand; in the environment whatever YAML takes for something else."""
    if "block-device" in place or isinstance(value, str) or value is _ABSENT:
        return False
    if place[-1:] == ("environment",):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)


def _block_device_text(document: Document) -> str:
    """The description as it stands in the recipe, moved by blanks so that its lines and columns are the file's own."""
    value = document.data["block-device"]
    if isinstance(value, str):
        return value
    place: Place = ("block-device",)
    start = document.starts[place]
    if document.aliased or start.index > document.ends[place]:
        return dumped(value)
    return "\n" * (start.line - 1) + " " * (start.column - 1) + document.text[start.index : document.ends[place]]


def dumped(value: object) -> str:
    """The value written anew, where the file's own text would refer to anchors elsewhere in it."""
    from io import StringIO

    from ruamel.yaml import YAML

    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(value, stream)
    return stream.getvalue()


def complaint(
    errors: list[ErrorDetails], document: Document, shown: str, keys: Sequence[str], below: Place = ()
) -> RecipeError:
    """The first complaint in the file's order, as a RecipeError.

    `keys` are those that may stand there; the errors' places count from the part of the document that is `below`.
    """

    def place_of(error: ErrorDetails) -> tuple[Mark, ErrorDetails]:
        place = (*below, *error["loc"])
        marks = document.keys if error["type"] == "extra_forbidden" else document.starts
        while place and place not in marks:
            place = place[:-1]
        return marks.get(place, Mark(1, 1, 0)), error

    mark, first = min(map(place_of, errors), key=lambda found: found[0].index)
    key = str(first["loc"][0])
    where = Where(file=shown, line=mark.line, column=mark.column)
    if first["type"] == "extra_forbidden":
        return unknown_key(key, keys, where)
    reason = "is missing" if first["type"] == "missing" else first.get("ctx", {}).get("error", first["msg"])
    more = f"and {len(errors) - 1} more" if len(errors) > 1 else ""
    return RecipeError(f"{key} {reason}", hint=more, where=where)


def unknown_key(key: str, keys: Sequence[str], where: Where, what: str = "key") -> RecipeError:
    """The error for a word that is none of `keys`, with the nearest ones."""
    near = get_close_matches(key, keys, n=2, cutoff=0.5)
    plural = "axes" if what == "axis" else f"{what}s"
    hint = f"did you mean {' or '.join(near)}?" if near else f"known {plural} are: {', '.join(keys)}"
    return RecipeError(f'unknown {what} "{key}"', hint=hint, where=where)
