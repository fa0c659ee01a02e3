"""What a matrix file may hold: pydantic models on top of the recipe's, and the JSON schema.

Imported only with a matrix: pydantic takes some 0.1 s.

The values of axes, `include`, `exclude`, `needs` and `boot` are models of their own, validated one by one where they
stand (`spec.py`), so that a complaint has their line and column.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from dibble.recipe.kinds import DURATION, FLAG, WHOLE, WORDS, Kind, scalar_text
from dibble.recipe.schema import Recipe
from dibble.recipe.schema import json_schema as recipe_schema


def _read(kind: Kind) -> tuple[BeforeValidator, WithJsonSchema]:
    return BeforeValidator(kind.of_data), WithJsonSchema(dict(kind.schema))


def _name(value: object) -> str:
    text = scalar_text(value)
    if not text.strip():
        raise ValueError("takes a name")
    return text


def _map(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("takes a map")
    return value


def _list(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("takes a list")
    return value


def _part(name: str) -> dict[str, Any]:
    """A reference to another model; pydantic would look for it among its own, so it is put in at the end."""
    return {"x-part": name}


Text = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": ["string", "number"]})]
Duration = Annotated[Any, *_read(DURATION)]
Whole = Annotated[Any, *_read(WHOLE)]
Flag = Annotated[Any, *_read(FLAG)]
Words = Annotated[Any, *_read(WORDS)]
_SELECTION = {"type": "object", "additionalProperties": {"type": ["string", "number", "array"]}}
_SELECTIONS = {"type": "array", "items": _SELECTION}
_BOOT = {"anyOf": [{"type": "boolean"}, _part("BootKeys")]}


class BootKeys(BaseModel):
    """`boot`: how the image of a cell is looked at when it is built."""

    model_config = ConfigDict(extra="forbid")

    timeout: Duration = Field(default=300, description="For the prompt, and again for each command.")
    memory: Whole = Field(default=1024, description="Of the guest, in MiB.")
    marker: Text = Field(default="", description="Text to wait for instead of a login prompt.")
    login: Text = Field(default="", description="User to log in as.")
    password: Text = Field(default="", description="The user's password.")
    commands: Annotated[Any, BeforeValidator(_list), WithJsonSchema({"type": "array"})] = Field(
        default=(), description="Commands that must end with 0 in the guest."
    )


class PolicyKeys(BaseModel):
    """How a cell is run; in the file for all cells, in a value for those that have it."""

    model_config = ConfigDict(extra="forbid")

    timeout: Duration = Field(default=None, description="How long one try at a cell may take.")
    retries: Whole = Field(default=None, description="Tries after the first, when a cell fails for a passing reason.")
    boot: Annotated[Any, WithJsonSchema(_BOOT)] = Field(default=None, description="Boot the image, and how.")


POLICY = ("timeout", "retries", "boot")


class ValueKeys(PolicyKeys, Recipe):  # type: ignore[valid-type, misc]  # a class made at run time
    """A value of an axis that is more than a word: its name and what a recipe may say."""

    name: Text  # of the value; the name of the image is the cell's
    allow_failure: Flag = Field(default=None, alias="allow-failure", description="Its failure does not fail the run.")
    architectures: Words = Field(default=None, description="Of a distribution: those that it exists for.")


class HostKeys(PolicyKeys):
    """A value of the axis `host` that is not `local`."""

    name: Text
    tree: Text = Field(default="", description="Directory or tar of a root tree, in which dibble runs.")
    build: Annotated[Any, WithJsonSchema(_part("Recipe"))] = Field(
        default=None, description="The recipe of that tree: it is built first, as the row hostgen."
    )
    allow_failure: Flag = Field(default=None, alias="allow-failure", description="Its failure does not fail the run.")


class NeedKeys(BaseModel):
    """An entry of `needs`."""

    model_config = ConfigDict(extra="forbid")

    cells: Annotated[Any, BeforeValidator(_map), WithJsonSchema(_SELECTION)] = Field(
        description="These are built later …"
    )
    after: Annotated[Any, BeforeValidator(_map), WithJsonSchema(_SELECTION)] = Field(
        description="… than those with these values instead."
    )


class MatrixFile(PolicyKeys):
    """A matrix: axes whose values, each with each, make the cells."""

    model_config = ConfigDict(extra="forbid", title="dibble matrix")

    name: Text = Field(default="", description="Of the matrix; the file's own unless given.")
    recipe: Text = Field(default="", description="A recipe that every cell begins with; relative to the file.")
    settings: Annotated[Any, BeforeValidator(_map), WithJsonSchema(_part("Recipe"))] = Field(
        default={}, description="What a recipe may say, for every cell."
    )
    axes: Annotated[
        Any,
        BeforeValidator(_map),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {
                        "anyOf": [
                            {"type": ["string", "number"]},
                            _part("ValueKeys"),
                            _part("HostKeys"),
                        ]
                    },
                },
            }
        ),
    ] = Field(default={}, description="Name of an axis: its values.")
    include: Annotated[Any, BeforeValidator(_list), WithJsonSchema({"type": "array"})] = Field(
        default=[], description="Cells besides those that the axes make."
    )
    exclude: Annotated[Any, BeforeValidator(_list), WithJsonSchema(_SELECTIONS)] = Field(
        default=[], description="Cells that are not built."
    )
    needs: Annotated[Any, BeforeValidator(_list), WithJsonSchema({"type": "array", "items": _part("NeedKeys")})] = (
        Field(default=[], description="What must have been built before what.")
    )
    allow_failure: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, _SELECTIONS]})] = Field(
        default=[], alias="allow-failure", description="Cells whose failure does not fail the run."
    )
    max_cells: Whole = Field(default=None, alias="max-cells", description="How many cells there may be (500).")
    tests: Text = Field(default="", description="A checkout of dibble, whose unit tests are the row tox of each host.")


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a model as they are written."""
    return tuple(sorted(field.alias or name for name, field in model.model_fields.items()))


MATRIX_KEYS = keys_of(MatrixFile)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a matrix file, for editors; deterministic."""
    models = (BootKeys, ValueKeys, HostKeys, NeedKeys)
    parts = {model.__name__: model.model_json_schema(by_alias=True) for model in models}
    whole = {**MatrixFile.model_json_schema(by_alias=True), "$defs": {"Recipe": recipe_schema(), **parts}}
    found: dict[str, Any] = _with_references(whole)
    return found


def _with_references(schema: Any) -> Any:
    if isinstance(schema, dict):
        if "x-part" in schema:
            rest = {key: value for key, value in schema.items() if key != "x-part"}
            return {**rest, "$ref": f"#/$defs/{schema['x-part']}"}
        return {key: _with_references(value) for key, value in schema.items()}
    return [_with_references(value) for value in schema] if isinstance(schema, list) else schema
