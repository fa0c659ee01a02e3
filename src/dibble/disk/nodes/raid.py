"""`raid`: a Linux RAID of devices; DIB has no such node."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import uuid5

from dibble.disk.nodes.base import NodeInfo
from dibble.disk.sizes import human, parse_size
from dibble.disk.volumes.md import CHUNK, LEVELS, NAME_BYTES, Array

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry

_MOST = 128
_NAME = re.compile(rf"(?!-)[a-zA-Z0-9._-]{{1,{NAME_BYTES}}}")
"""mdadm(8), --name: POSIX's portable file names; mdadm 4.3 and later refuses a configuration with any other."""


class Raid:
    info = NodeInfo("raid", level=1, keys=("level", "chunk"), several=True)

    @staticmethod
    def parse(entry: Entry, context: Context) -> Array:
        text = entry.needed("level", "1").lower().removeprefix("raid")
        level = int(text) if text.isascii() and text.isdigit() else -1
        if level not in LEVELS:
            known = ", ".join(str(level) for level in LEVELS)
            entry.refuse(f'has the level "{entry.text("level")}"', f"write one of {known}", "level")
        bases = tuple(context.device(entry, "base", name) for name in entry.stands_on)
        if not LEVELS[level] <= len(bases) <= _MOST:
            reason = f"of level {level} has {len(bases)} members"
            entry.refuse(reason, f'write from {LEVELS[level]} to {_MOST} devices as "base: [DEVICE, DEVICE]"', "base")
        if not _NAME.fullmatch(entry.name):
            hint = f"use at most {NAME_BYTES} letters, digits, and . _ -, no hyphen first"
            entry.refuse("has a name that a RAID does not take", hint, "name")
        return Array(
            entry.name,
            bases,
            level,
            _chunk(entry, level),
            uuid5(context.defaults.seed, f"raid {entry.name}"),
            entry.where,
        )


def _chunk(entry: Entry, level: int) -> int:
    text = entry.text("chunk")
    if level == 1:
        if text is not None:
            entry.refuse("of level 1 has a chunk, but nothing is striped", 'remove "chunk"', "chunk")
        return 0
    chunk = CHUNK if text is None else parse_size(text, entry.place_of("chunk"))
    if chunk < 4096 or chunk & (chunk - 1):
        entry.refuse(f"has a chunk of {human(chunk)}", "write a power of two from 4KiB on", "chunk")
    return chunk
