"""What a recipe may hold: a pydantic model made from the table of options, and its JSON schema.

Imported only when a recipe is read or the schema is asked for: pydantic takes some 0.1 s to import.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from dibble.recipe.kinds import WORDS, scalar_text
from dibble.recipe.options import OPTIONS, Option


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("takes a map of variables")
    found = {}
    for name, text in value.items():
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise ValueError(f'"{name}" is not a name for a variable')
        try:
            found[name] = scalar_text(text)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error
    return found


def _block_device(value: object) -> object:
    """A description, whose nodes `disk/` reads with the file's own lines, or a `file://` address of one."""
    if isinstance(value, list) or (isinstance(value, str) and value.startswith("file:///")):
        return value
    raise ValueError("takes a list of nodes, or file:// and an absolute path")


def _field(option: Option) -> Any:  # the pair that create_model takes: a type made at run time, and its FieldInfo
    reads = Annotated[Any, BeforeValidator(option.kind.of_data), WithJsonSchema(dict(option.kind.schema))]
    return (reads, Field(default=None, alias=option.recipe_key, description=option.help))


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", title="dibble recipe")

    elements: Annotated[Any, BeforeValidator(WORDS.of_data), WithJsonSchema(dict(WORDS.schema))] = Field(
        default=(), description="Elements to build the image from; at least an operating system."
    )
    environment: Annotated[
        Any,
        BeforeValidator(_environment),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}),
    ] = Field(default={}, description="Variables for the elements; they hide those of the caller.")
    block_device: Annotated[
        Any,
        BeforeValidator(_block_device),
        WithJsonSchema({"type": ["array", "string"], "items": {"type": "object"}}),
    ] = Field(default=None, alias="block-device", description="The disk, as in block-device-default.yaml.")


Recipe: type[_Base] = create_model(
    "Recipe", __base__=_Base, **{option.key: _field(option) for option in OPTIONS if option.recipe_key}
)


def _words(value: object) -> tuple[str, ...]:
    return WORDS.of_data(value)  # type: ignore[return-value]  # a kind's reader gives an object


def _text(value: object) -> str:
    return " ".join(scalar_text(value).split())


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GateKeys(_Strict):
    """`gate` of a preset."""

    present: Annotated[Any, BeforeValidator(_words)] = ()
    absent: Annotated[Any, BeforeValidator(_words)] = ()


class MachineKeys(_Strict):
    """`machine` of a preset."""

    disk_bus: Annotated[str, BeforeValidator(_text), Field(alias="disk-bus")] = "virtio"
    network: Annotated[str, BeforeValidator(_text)] = "virtio"
    metadata: Annotated[str, BeforeValidator(_text)] = ""
    minimum_memory: Annotated[int, Field(alias="minimum-memory", ge=1)] = 512


class PresetFile(Recipe):  # type: ignore[valid-type, misc]  # a class made at run time
    """A preset: a recipe's keys, and those that only a preset has."""

    summary: Annotated[str, BeforeValidator(_text)]
    layout: Annotated[str, BeforeValidator(_text)] = ""
    machine: MachineKeys = MachineKeys()
    gate: GateKeys = GateKeys()


PRESET_KEYS = ("summary", "layout", "machine", "gate")

KEYS: tuple[str, ...] = tuple(
    sorted((field.alias or name) for name, field in Recipe.model_fields.items())  # as written in a recipe
)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors; deterministic."""
    return Recipe.model_json_schema(by_alias=True)
