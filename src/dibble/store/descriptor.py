"""What a remote cache says of one entry, as text that can be signed, and reading it with suspicion.

An entry travels as an envelope, JSON with the descriptor's own text in a string: a signature covers exactly these
bytes, whatever writes the JSON around them. A descriptor names what it is for, so that one that is signed for one key
cannot stand under another.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from dibble.store.archive import Archive
from dibble.store.layers import SCHEMA, Input, Record
from dibble.store.refused import EntryRefused, OtherVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMAT = 1
"""Grows when an older dibble would misread an entry; stands in the descriptor and in the cache's first directory."""
Kind = Literal["layer", "packages", "output"]
_HEX = re.compile(r"[0-9a-f]{40,64}")
_STACKED = re.compile(r"(@[a-z-]+|pkg-[0-9a-f]{40}/0|[0-9a-f]{40}/[0-9]{1,3})")
_FILE = re.compile(r"output[A-Za-z0-9._-]*")
_SIZE_LIMIT = 1 << 50  # bytes; a number beyond is no size of an image


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One entry. `name` is a layer's id, the entry of a set of packages (`pkg-…`) or an output's key.

    `tops` are the names at the top of the archive: `0`, `1`, `exports` of a layer, the files of an output. A layer
    that changes nothing has no archive. `record` is that of a layer, `parts` are those of its key, for explanations.
    """

    kind: Kind
    name: str
    archive: Archive | None
    tops: tuple[str, ...] = ()
    record: Record | None = None
    parts: Mapping[str, str] = field(default_factory=dict)


def packages_of(record: Record) -> tuple[str, ...]:
    """The sets of packages (`pkg-…`) that a layer stands on."""
    return tuple(entry.partition("/")[0] for entry in record.stack if entry.startswith("pkg-"))


def enveloped(descriptor: Descriptor, sign: Callable[[bytes], str] | None) -> dict[str, str | None]:
    """The envelope as JSON data: `descriptor` (text) and `signature` (armored OpenPGP, or null)."""
    text = json.dumps({"format": FORMAT, **asdict(descriptor)}, sort_keys=True)
    return {"descriptor": text, "signature": sign(text.encode()) if sign else None}


def opened(envelope: object, check: Callable[[bytes, str | None], None] | None) -> Descriptor:
    """The descriptor in an envelope (JSON data) from outside. Raises EntryRefused.

    `check` verifies the signature and raises EntryRefused.
    """
    if not isinstance(envelope, dict):
        raise EntryRefused("is no envelope")
    text, signature = envelope.get("descriptor"), envelope.get("signature")
    if not isinstance(text, str) or not (signature is None or isinstance(signature, str)):
        raise EntryRefused("is no envelope")
    try:
        data = text.encode()
        if check:
            check(data, signature)
        fields: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EntryRefused("holds a damaged descriptor") from error
    return _descriptor(fields)


def _descriptor(fields: Any) -> Descriptor:  # any JSON
    if not isinstance(fields, dict) or set(fields) != {"format", "kind", "name", "archive", "tops", "record", "parts"}:
        raise EntryRefused("holds a damaged descriptor")
    if fields["format"] != FORMAT:
        raise OtherVersion(f"has the format {fields['format']}, this dibble reads {FORMAT}")
    kind, name, tops = fields["kind"], fields["name"], fields["tops"]
    if kind not in get_args(Kind) or not isinstance(name, str) or not _texts(tops) or not _text_map(fields["parts"]):
        raise EntryRefused("holds a damaged descriptor")
    archive = _archive(fields["archive"])
    record = _record(fields["record"]) if fields["record"] is not None else None
    found = Descriptor(kind, name, archive, tuple(tops), record, fields["parts"])
    if (archive is None) != (not tops) or len(set(tops)) != len(tops) or not _fits(found):
        raise EntryRefused("holds a descriptor that contradicts itself")
    return found


def _fits(found: Descriptor) -> bool:
    if found.kind == "packages":
        return bool(re.fullmatch(r"pkg-[0-9a-f]{40}", found.name)) and found.tops == ("0",) and found.record is None
    if not _HEX.fullmatch(found.name):
        return False
    if found.kind == "output":
        return bool(found.tops) and all(_FILE.fullmatch(name) for name in found.tops) and found.record is None
    return found.record is not None and _layer_fits(found.name, found.tops, found.record)


def _layer_fits(name: str, tops: tuple[str, ...], record: Record) -> bool:
    """Whether a record's paths stay in the store and its own directories are those of the archive."""
    own = [entry.partition("/")[2] for entry in record.stack if entry.startswith(f"{name}/")]
    return (
        record.id == name
        and bool(_HEX.fullmatch(record.key))
        and record.step.isprintable()
        and not any(path.startswith("/") or ".." in path.split("/") for path in record.hooks)
        and all(_STACKED.fullmatch(entry) for entry in record.stack)
        and all(entry.startswith(("@", "pkg-", f"{name}/")) for entry in record.stack)
        and own == [str(number) for number in range(len(own))]
        and set(tops) == {*own, *(["exports"] if record.exports else [])}
    )


def _archive(fields: Any) -> Archive | None:  # any JSON
    if fields is None:
        return None
    if isinstance(fields, dict) and set(fields) == {"sha256", "size", "unpacked", "entries"}:
        digest = fields["sha256"]
        numbers = [fields[name] for name in ("size", "unpacked", "entries")]
        if (
            isinstance(digest, str)
            and re.fullmatch(r"[0-9a-f]{64}", digest)
            and all(type(number) is int and 0 < number < _SIZE_LIMIT for number in numbers)
        ):
            return Archive(digest, *numbers)
    raise EntryRefused("holds a damaged descriptor")


def _record(data: Any) -> Record:  # any JSON
    if not isinstance(data, dict):
        raise EntryRefused("holds a damaged record")
    if type(data.get("schema")) is int and data["schema"] != SCHEMA:
        raise OtherVersion(f"has a record of version {data['schema']}, this dibble's are {SCHEMA}")
    kinds = {field.name: str(field.type) for field in fields(Record)}
    if set(data) != set(kinds) or not all(_IS[kinds[name]](value) for name, value in data.items()):
        raise EntryRefused("holds a damaged record")
    values: dict[str, Any] = {name: tuple(value) if kinds[name] == _TEXTS else value for name, value in data.items()}
    values["inputs"] = tuple(Input(**entry) for entry in data["inputs"])
    return Record(**values)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _text_map(value: object, *, none: bool = False) -> bool:
    # The keys of a JSON object are texts.
    return isinstance(value, dict) and all(isinstance(v, str) or (none and v is None) for v in value.values())


def _inputs(value: object) -> bool:
    names = {field.name for field in fields(Input)}
    return isinstance(value, list) and all(_text_map(item) and set(item) == names for item in value)


def _number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _SIZE_LIMIT  # type: ignore[arg-type]  # a number by now


_TEXTS = "tuple[str, ...]"
_IS: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int and _number(value),
    "float": _number,
    "bool": lambda value: isinstance(value, bool),
    _TEXTS: _texts,
    "Mapping[str, str]": _text_map,
    "Mapping[str, str | None]": lambda value: _text_map(value, none=True),
    "tuple[Input, ...]": _inputs,
}
"""Whether JSON data are a value of a record's field, by the field's type; a type that is not here is no field's."""
