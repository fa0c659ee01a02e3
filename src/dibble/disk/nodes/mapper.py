"""Names of devices that the device mapper makes when a system runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Entry

_NAME = re.compile(r"(?!-)[a-zA-Z0-9#+=@_.-]{1,127}")
"""What udev and crypttab(5) take as it is, of at most DM_NAME_LEN (linux/dm-ioctl.h) less its end."""


def check_mapper_name(entry: Entry) -> None:
    """Raises DiskLayoutError for a node whose name cannot be that of a file in /dev/mapper."""
    if not _NAME.fullmatch(entry.name) or entry.name in (".", "..", "control"):
        hint = "use at most 127 letters, digits, and . _ - + = @, no hyphen first"
        entry.refuse("has a name that the device mapper does not take", hint, "name")
