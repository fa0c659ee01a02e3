"""A matrix file → what it says, checked. Every complaint names file, line and column, and the nearest valid word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dibble.errors import RecipeError, Where
from dibble.fleet.spec import (
    HOST,
    LOCAL,
    MAX_CELLS,
    BootCheck,
    Data,
    HostTree,
    Include,
    Need,
    Policy,
    Selection,
    Spec,
    Value,
    merged,
)
from dibble.recipe.kinds import scalar_text, words_of
from dibble.recipe.options import OPTIONS
from dibble.recipe.read import complaint, parse, text_of, unknown_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from dibble.recipe.read import Document, Place

_MEANINGS = {
    # axis → the recipe's key for a plain value
    "architecture": "arch",
    "distribution": "elements",
    "environment": "preset",
    "format": "outputs",
}
_RELEASE, _VARIANT = "release", "variant"
_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
_EXAMPLE = "axes: {distribution: [debian-minimal]}"
_OWN = ("name", "logfile")
"""Keys of a recipe that each cell gets from its name."""


def axis_names() -> tuple[str, ...]:
    """Every name that an axis may have, besides variables in capitals."""
    keys = {option.recipe_key for option in OPTIONS if option.recipe_key and option.recipe_key not in _OWN}
    return tuple(sorted({*_MEANINGS, HOST, "elements", _RELEASE, _VARIANT, *keys}))


def read_matrix(path: Path, *, shown: str) -> Spec:
    """The matrix in the file `path`, which `shown` names in messages. Raises RecipeError."""
    document = parse(text_of(path, shown, "matrix"), shown, "matrix", _EXAMPLE)
    return _Reader(document, path, shown).spec()


class _Reader:
    def __init__(self, document: Document, path: Path, shown: str) -> None:
        self._document = document
        self._path = path
        self._shown = shown

    def spec(self) -> Spec:
        from dibble.fleet import schema

        file: Any = self._validated(schema.MatrixFile, self._document.data, (), schema.MATRIX_KEYS)
        axes = {str(name): self._axis(str(name), values) for name, values in file.axes.items()}
        if not axes:
            raise RecipeError("the matrix has no axis", hint=f"such as: {_EXAMPLE}", where=self._at("axes"))
        spec = Spec(
            name=file.name or self._path.stem,
            shown=self._shown,
            folder=self._path.parent,
            axes=axes,
            policy=self._policy(file, ()),
            base=self._base(file),
            max_cells=MAX_CELLS if file.max_cells is None else file.max_cells,
            tests=self._path.parent / file.tests if file.tests else None,
        )
        spec = replace(spec, include=tuple(self._include(spec, i, entry) for i, entry in enumerate(file.include)))
        known = _known_names(spec)
        allow = file.allow_failure
        if allow is True or allow is False:
            spec = replace(spec, policy=replace(spec.policy, allow_failure=allow))
            allow = []
        if not isinstance(allow, list):
            raise RecipeError("allow-failure takes true, false or a list of cells", where=self._at("allow-failure"))
        return replace(
            spec,
            exclude=self._selections("exclude", file.exclude, known),
            allow_failure=self._selections("allow-failure", allow, known),
            needs=tuple(self._need(i, entry, known) for i, entry in enumerate(file.needs)),
        )

    def _at(self, *place: str | int, key: bool = False) -> Where:
        marks = self._document.keys if key else self._document.starts
        mark = marks.get(place) or self._document.starts.get(place)
        return Where(self._shown, mark.line, mark.column) if mark else Where(self._shown)

    def _validated(self, model: type[BaseModel], data: object, place: Place, keys: Sequence[str] = ()) -> Any:
        """The data as this model, whose own fields are then read. Raises RecipeError."""
        from pydantic import ValidationError

        from dibble.fleet import schema

        try:
            return model.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as error:
            known = keys or schema.keys_of(model)
            raise complaint(error.errors(), self._document, self._shown, known, place) from error

    def _base(self, file: Any) -> Data:
        from dibble.recipe.schema import KEYS, Recipe

        own: dict[str, Any] = {}
        if file.recipe:
            path = self._path.parent / file.recipe
            reader = _Reader(parse(text_of(path, str(path)), str(path)), path, str(path))
            own = reader._recipe_data(reader._document.data, ())
        self._validated(Recipe, file.settings, ("settings",), KEYS)
        return merged(own, self._recipe_data(file.settings, ("settings",)))

    def _recipe_data(self, data: Data, place: Place) -> dict[str, Any]:
        """Keys of a recipe, validated, with directories made absolute. Raises RecipeError."""
        from dibble.recipe.schema import KEYS, Recipe

        self._validated(Recipe, data, place, KEYS)
        for key in _OWN:
            if key in data:
                raise RecipeError(
                    f"{key} is made of the cell's name", hint=f"take {key} out", where=self._at(*place, key, key=True)
                )
        found = dict(data)
        if "elements-path" in found:
            entries = found["elements-path"]
            folders = entries if isinstance(entries, list) else words_of(entries)
            found["elements-path"] = [str((self._path.parent / scalar_text(folder)).resolve()) for folder in folders]
        return found

    def _axis(self, name: str, values: object) -> tuple[Value, ...]:
        place = ("axes", name)
        if name not in axis_names() and not _VARIABLE.fullmatch(name):
            raise unknown_key(name, axis_names(), self._at(*place, key=True), "axis")
        if not isinstance(values, list) or not values:
            raise RecipeError(f"the axis {name} takes a list of values", where=self._at(*place))
        found = [self._value(name, value, (*place, i)) for i, value in enumerate(values)]
        seen: set[str] = set()
        for i, value in enumerate(found):
            if value.name in seen:
                raise RecipeError(f'the axis {name} has "{value.name}" twice', where=self._at(*place, i))
            seen.add(value.name)
        return tuple(found)

    def _value(self, axis: str, value: object, place: Place) -> Value:
        where = self._at(*place)
        if isinstance(value, Mapping):
            return self._host(dict(value), place) if axis == HOST else self._mapping(axis, dict(value), place)
        if axis == HOST:
            if value != LOCAL:
                raise RecipeError(
                    f'the host "{value}" has no tree',
                    hint=f"write {{name: {value}, tree: PATH}}, {{name: {value}, build: {{elements: [...]}}}} or local",
                    where=where,
                )
            return Value(HOST, LOCAL, where=where)
        if axis == _VARIANT:
            raise RecipeError(
                f'the variant "{value}" says nothing', hint="write {name: …, elements: …, environment: …}", where=where
            )
        try:
            name = "-".join(scalar_text(item) for item in value) if isinstance(value, list) else _plain(value)
        except ValueError as error:
            raise RecipeError(f"a value of the axis {axis} {error}", where=where) from error
        data = _meaning(axis, value)
        self._recipe_values(data, axis, where)
        return Value(axis, _safe(name), data, where=where)

    def _recipe_values(self, data: Data, axis: str, where: Where) -> None:
        """Check what a plain value means to the recipe, where it stands."""
        from pydantic import ValidationError

        from dibble.recipe.schema import Recipe

        try:
            Recipe.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first.get("ctx", {}).get("error", first["msg"])
            raise RecipeError(f"a value of the axis {axis} {reason}", where=where) from error

    def _mapping(self, axis: str, value: dict[str, Any], place: Place) -> Value:
        from dibble.fleet import schema

        read = self._validated(schema.ValueKeys, value, place)
        own = {"name", "allow-failure", "architectures", *schema.POLICY}
        data = self._recipe_data({key: part for key, part in value.items() if key not in own}, place)
        if axis == "architecture" and "arch" not in data:
            data["arch"] = read.name
        return Value(
            axis,
            _safe(read.name),
            data,
            replace(self._policy(read, place), allow_failure=read.allow_failure),
            architectures=tuple(read.architectures or ()),
            where=self._at(*place),
        )

    def _host(self, value: dict[str, Any], place: Place) -> Value:
        from dibble.fleet import schema

        read = self._validated(schema.HostKeys, value, place)
        where = self._at(*place)
        if bool(read.tree) == bool(read.build) and read.name != LOCAL:
            raise RecipeError(
                f'the host "{read.name}" takes one of tree and build',
                hint="tree: a directory or a tar; build: a recipe that makes the tree",
                where=where,
            )
        build = None
        if read.build is not None:
            if not isinstance(read.build, Mapping):
                raise RecipeError("build takes a map, as a recipe", where=self._at(*place, "build"))
            build = self._recipe_data(read.build, (*place, "build"))
        tree = (self._path.parent / read.tree).absolute() if read.tree else None
        policy = replace(self._policy(read, place), allow_failure=read.allow_failure)
        return Value(HOST, _safe(read.name), {}, policy, HostTree(tree, build), where=where)

    def _policy(self, read: Any, place: Place) -> Policy:
        """`timeout`, `retries` and `boot` of a validated part."""
        from dibble.fleet.schema import BootKeys

        boot: BootCheck | bool | None
        if read.boot is None or isinstance(read.boot, bool):
            boot = BootCheck() if read.boot else read.boot
        elif isinstance(read.boot, Mapping):
            keys: Any = self._validated(BootKeys, read.boot, (*place, "boot"))
            commands = tuple(str(command) for command in keys.commands)
            boot = BootCheck(keys.timeout, keys.memory, keys.marker, keys.login, keys.password, commands)
        else:
            raise RecipeError("boot takes true, false or a map", where=self._at(*place, "boot"))
        return Policy(read.timeout, read.retries, boot)

    def _include(self, spec: Spec, index: int, entry: object) -> Include:
        place: Place = ("include", index)
        where = self._at(*place)
        if not isinstance(entry, Mapping):
            raise RecipeError("an entry of include takes a map of axes", where=where)
        from dibble.fleet import schema

        values: dict[str, Value] = {}
        for axis, value in entry.items():
            if axis in spec.axes:
                known = {one.name: one for one in spec.axes[axis]}
                named = known.get(_safe(str(value))) if isinstance(value, str) else None
                values[axis] = named or self._value(axis, value, (*place, axis))
        rest = {key: value for key, value in entry.items() if key not in spec.axes}
        allowed = (*spec.axes, "settings", "allow-failure", *schema.POLICY)
        for key in rest:
            if key not in allowed:
                raise unknown_key(key, allowed, self._at(*place, key, key=True), "axis")
        settings = rest.pop("settings", {})
        if not isinstance(settings, Mapping):
            raise RecipeError("settings takes a map", where=self._at(*place, "settings"))
        data = self._recipe_data(settings, (*place, "settings"))
        read = self._validated(schema.ValueKeys, {"name": "x", **rest}, place)
        policy = replace(self._policy(read, place), allow_failure=read.allow_failure)
        return Include(values, data, policy, where)

    def _need(self, index: int, entry: object, known: Mapping[str, tuple[str, ...]]) -> Need:
        from dibble.fleet import schema

        place: Place = ("needs", index)
        read = self._validated(schema.NeedKeys, entry, place)
        cells = self._selection(read.cells, (*place, "cells"), known)
        return Need(cells, self._selection(read.after, (*place, "after"), known), self._at(*place))

    def _selections(
        self, key: str, entries: Sequence[object], known: Mapping[str, tuple[str, ...]]
    ) -> tuple[Selection, ...]:
        return tuple(self._selection(entry, (key, index), known) for index, entry in enumerate(entries))

    def _selection(self, entry: object, place: Place, known: Mapping[str, tuple[str, ...]]) -> Selection:
        """Cells by values. Raises RecipeError for an axis or a value that there is not."""
        where = self._at(*place)
        if not isinstance(entry, Mapping) or not entry:
            raise RecipeError("cells are named by a map of axes and values", where=where)
        found: dict[str, tuple[str, ...]] = {}
        for axis, value in entry.items():
            if axis not in known:
                raise unknown_key(str(axis), tuple(known), self._at(*place, str(axis), key=True), "axis")
            names = tuple(_safe(str(one)) for one in (value if isinstance(value, list) else [value]))
            for name in names:
                if name not in known[axis]:
                    at = self._at(*place, axis)
                    raise unknown_key(name, known[axis], at, f"value of the axis {axis}:")
            found[axis] = names
        return Selection(found, where)


def _plain(value: object) -> str:
    return scalar_text(value)


def _meaning(axis: str, value: object) -> dict[str, Any]:
    """What a plain value of an axis stands for in a recipe."""
    if axis == _RELEASE:
        return {"environment": {"DIB_RELEASE": value}}
    if _VARIABLE.fullmatch(axis):
        return {"environment": {axis: value}}
    return {_MEANINGS.get(axis, axis): value}


def _safe(name: str) -> str:
    """A name that files may have: what else there is becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._+]+", "-", name).strip("-.") or "x"


def _known_names(spec: Spec) -> dict[str, tuple[str, ...]]:
    """The names of each axis, with those that only `include` has."""
    found = {axis: [value.name for value in values] for axis, values in spec.axes.items()}
    for include in spec.include:
        for axis, value in include.values.items():
            found[axis].append(value.name)
    return {axis: tuple(dict.fromkeys(names)) for axis, names in found.items()}
