"""The options of pvcreate, vgcreate and lvcreate that a description may have: those that change what is written, and
those that have nothing to do on a new disk (pvcreate(8), vgcreate(8), lvcreate(8))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Entry

_IDLE = {"-f": 0, "-ff": 0, "--force": 0, "-y": 0, "--yes": 0, "-q": 0, "--quiet": 0, "-v": 0, "--verbose": 0}
_IDLE_WITH_VALUE = {"-Z", "--zero", "-W", "--wipesignatures", "-A", "--autobackup"}
_MEANT = {
    "pvcreate": {},
    "vgcreate": {"-s": "extent", "--physicalextentsize": "extent", "--addtag": "tag"},
    "lvcreate": {
        "-i": "stripes", "--stripes": "stripes", "-I": "stripe", "--stripesize": "stripe", "--type": "type",
        "--addtag": "tag",
    },
}  # fmt: skip
_DEFAULT_UNIT = {"extent": 1 << 20, "stripe": 1 << 10}  # a number without a unit: MiB for extents, KiB for stripes
_UNITS = {"": 0, "b": 1, "s": 512, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([bskmgBSKMG]?)(?:iB)?")
_TAG = re.compile(r"@?[a-zA-Z0-9_+.][a-zA-Z0-9_+.\-/=!:#&]{0,1022}")


@dataclass(slots=True)
class Options:
    """`extent` and `stripe` in bytes; None where nothing is said."""

    extent: int | None = None
    stripes: int | None = None
    stripe: int | None = None
    type: str = ""
    tags: tuple[str, ...] = ()


def parse_options(entry: Entry, command: str) -> Options:
    """What the `options` of a part say to an LVM command. Raises DiskLayoutError for others than the known ones."""
    meant = _MEANT[command]
    options = Options()
    words = iter([word for text in entry.words("options") for word in text.split()])
    for word in words:
        name, equals, value = word.partition("=")
        if name in _IDLE:
            continue
        if name not in _IDLE_WITH_VALUE and name not in meant:
            known = ", ".join([*meant, *sorted(_IDLE_WITH_VALUE), *_IDLE])
            entry.refuse(
                f'has the option "{word}", which dibble does not know for {command}', f"known are: {known}", "options"
            )
        value = value if equals else next(words, "")
        if not value:
            entry.refuse(f'has the option "{name}" without a value', f'write "{name}=VALUE"', "options")
        if name in meant:
            _set(options, meant[name], value, entry)
    return options


def _set(options: Options, meaning: str, value: str, entry: Entry) -> None:
    if meaning == "type":
        options.type = value
    elif meaning == "tag":
        if not _TAG.fullmatch(value):
            entry.refuse(
                f'has the tag "{value}", which LVM does not take', "use letters, digits and _ + . - /", "options"
            )
        options.tags = (*options.tags, value.removeprefix("@"))
    elif meaning == "stripes":
        if not (value.isascii() and value.isdigit() and 0 < int(value) <= 128):
            entry.refuse(f'has "{value}" stripes', "write a number from 1 to 128", "options")
        options.stripes = int(value)
    else:
        match = _SIZE.fullmatch(value)
        if match is None:
            entry.refuse(f'has the size "{value}" among its options', "write it as 4m or 64k", "options")
        size = int(float(match[1]) * (_UNITS[match[2].lower()] or _DEFAULT_UNIT[meaning]))
        if meaning == "extent":
            options.extent = size
        else:
            options.stripe = size
