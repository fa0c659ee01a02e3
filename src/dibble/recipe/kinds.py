"""The kinds of value an option takes, and how each is read from text (command line, environment) and from YAML.

A reader raises ValueError with a text that continues a sentence whose subject is the option: "takes …, not …".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

# Units as in block-device descriptions (contract.md 5.4); a bare number counts in the option's own unit.
_UNITS = {"KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": TIB, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?([A-Za-z]*)")

Schema = Mapping[str, Any]  # a JSON schema; its values are any JSON


@dataclass(frozen=True, slots=True)
class Kind:
    """How an option's value is read.

    `of_text` reads what stands on the command line or in a variable, `of_data` what YAML gives. `flag`: takes no value
    on the command line; `counts`: may be repeated and counts; `gathers`: may be repeated, all values are kept.
    """

    metavar: str
    of_text: Callable[[str], object]
    of_data: Callable[[object], object]
    schema: Schema = field(default_factory=dict)
    flag: bool = False
    counts: bool = False
    gathers: bool = False


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def scalar_text(value: object) -> str:
    """A YAML text or number as text; raises ValueError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"takes a text, not {_named(value)}")


def _named(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a map"
    return "a list" if isinstance(value, list | tuple) else _shown(value)


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("takes a text without a null character")
    return value


def _whole(value: str) -> int:
    if not re.fullmatch("[0-9]+", value):
        raise ValueError(f"takes a whole number, not {_shown(value)}")
    return int(value)


def _whole_of_data(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"takes a whole number, not {_named(value)}")
    return _whole(str(value))


def size_in_bytes(value: str, unit: int) -> int:
    """A size such as `10`, `2.5` (counted in `unit` bytes) or `512MiB`, in bytes, a multiple of 1 KiB rounded down."""
    match = _SIZE.fullmatch(value.strip())
    factor = unit if match and not match[2] else _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        name = "GiB" if unit == GIB else "MiB"
        raise ValueError(
            f'takes a number of {name}, such as 10 or 2.5, or a size such as "512MiB", not {_shown(value)}'
        )
    size = int(Decimal(match[1]) * factor)
    if size < KIB:
        raise ValueError(f"takes a size above 0, not {_shown(value)}")
    return size // KIB * KIB


def _size(unit: int) -> Kind:
    name = "GiB" if unit == GIB else "MiB"
    return Kind(
        metavar=name,
        of_text=lambda text: size_in_bytes(text, unit),
        of_data=lambda data: size_in_bytes(scalar_text(data), unit),
        schema={"type": ["number", "string"], "description": f"a number of {name}, or a text with a unit"},
    )


_TIMES = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?([a-z]*)")


def seconds_of(value: str) -> int:
    """A length of time such as `90`, `30m`, `1.5h` or `7d`, in whole seconds."""
    match = _TIME.fullmatch(value.strip().lower())
    if match is None or match[2] not in _TIMES:
        raise ValueError(f'takes a length of time, such as "90" (seconds), "30m", "12h" or "7d", not {_shown(value)}')
    return int(Decimal(match[1]) * _TIMES[match[2]])


def _flag_of_data(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"takes true or false, not {_named(value)}")
    return value


def _flag_of_text(value: str) -> bool:
    return value == "1"


def words_of(text: str) -> tuple[str, ...]:
    """The words between commas and blanks."""
    return tuple(text.replace(",", " ").split())


def _words_of_data(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return words_of(value)
    if not isinstance(value, list):
        raise ValueError(f"takes a list of names, not {_named(value)}")
    return tuple(scalar_text(item) for item in value)


def _pairs_of_data(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{scalar_text(key)}={_pair_value(item)}" for key, item in value.items())
    return scalar_text(value)


def _pair_value(value: object) -> str:
    """qemu-img writes booleans as on and off."""
    return ("on" if value else "off") if isinstance(value, bool) else scalar_text(value)


def _named_files_of_text(value: str) -> tuple[str, ...]:
    name, equals, file = value.partition("=")
    if not (_FILE_NAME.fullmatch(name) and equals and file) or "\0" in file:
        raise ValueError(f"takes a name, =, and a file, not {_shown(value)}")
    return (value,)


def _named_files_of_data(value: object) -> tuple[str, ...]:
    if not isinstance(value, Mapping):
        raise ValueError(f"takes a map of names to files, not {_named(value)}")
    pairs = (_named_files_of_text(f"{scalar_text(name)}={scalar_text(file)}") for name, file in value.items())
    return tuple(text for pair in pairs for text in pair)


def named_files_of_list(value: str) -> tuple[str, ...]:
    """`NAME=FILE,NAME=FILE`, as a variable has it."""
    return tuple(text for pair in value.split(",") for text in _named_files_of_text(pair))


_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+")
CHECKSUMS = ("md5", "sha256")


def _checksums_of_text(value: str) -> tuple[str, ...]:
    """DIB_CHECKSUM: 0, 1, or a text with the names in it (contract.md 1.2)."""
    if value in {"0", ""}:
        return ()
    if value == "1":
        return CHECKSUMS
    chosen = tuple(name for name in CHECKSUMS if name in value)
    if not chosen:
        raise ValueError(f"takes 0, 1, md5, sha256 or both names, not {_shown(value)}")
    return chosen


def _checksums_of_data(value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return CHECKSUMS if value else ()
    asked = _words_of_data(value)
    for name in asked:
        if name not in CHECKSUMS:
            raise ValueError(f'takes true, or a list of {" and ".join(CHECKSUMS)}, not "{name}"')
    return tuple(name for name in CHECKSUMS if name in asked)


def _paths_of_text(value: str) -> tuple[str, ...]:
    """A colon list; an empty entry would mean "here", which nobody means (contract.md 3.2 refuses it too)."""
    entries = tuple(value.split(":"))
    if not all(entries):
        raise ValueError(f"takes directories joined by colons; {_shown(value)} has an empty entry")
    return entries


def one_of(*choices: str) -> Kind:
    """One word out of a closed set."""

    def of_text(text: str) -> str:
        if text not in choices:
            raise ValueError(f"takes {' or '.join(choices)}, not {_shown(text)}")
        return text

    return Kind("|".join(choices), of_text, lambda data: of_text(scalar_text(data)), {"enum": list(choices)})


_LIST = {"type": ["array", "string"], "items": {"type": ["string", "number"]}}

TEXT = Kind("TEXT", _text, lambda data: _text(scalar_text(data)), {"type": ["string", "number"]})
PATH = Kind("PATH", _text, lambda data: _text(scalar_text(data)), {"type": "string"})
WHOLE = Kind("N", _whole, _whole_of_data, {"type": "integer", "minimum": 0})
COUNT = Kind("", _whole, _whole_of_data, {"type": "integer", "minimum": 0}, counts=True)
ARCHITECTURES = Kind("ARCH,ARCH", _text, lambda data: ",".join(_words_of_data(data)), _LIST)
DURATION = Kind(
    "TIME",
    seconds_of,
    lambda data: seconds_of(scalar_text(data)),
    {"type": ["number", "string"], "description": 'seconds, or a text with a unit such as "30m"'},
)
SIZE_GIB = _size(GIB)
SIZE_MIB = _size(MIB)
FLAG = Kind("", _flag_of_text, _flag_of_data, {"type": "boolean"}, flag=True)
WORDS = Kind("NAME,NAME", words_of, _words_of_data, _LIST, gathers=True)
FORMATS = Kind("FORMAT,FORMAT", words_of, _words_of_data, _LIST)
PAIRS = Kind("K=V,K=V", _text, _pairs_of_data, {"type": ["object", "string"]})
NAMED_FILES = Kind("NAME=FILE", _named_files_of_text, _named_files_of_data, {"type": "object"}, gathers=True)
PATHS = Kind("DIR:DIR", _paths_of_text, _words_of_data, {"type": "array", "items": {"type": "string"}})
CHECKSUM = Kind(
    "",
    _checksums_of_text,
    _checksums_of_data,
    {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"enum": list(CHECKSUMS)}}]},
    flag=True,
)
