"""Runs a verb of dibble with more arguments for QEMU than it has options for; a program, so that any user can.

    python -m tests.boot.boot_with ARGUMENTS boot IMAGE …

ARGUMENTS is a JSON list.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from dibble.cli.main import main
from dibble.evidence import qemu

if TYPE_CHECKING:
    from dibble.evidence.qemu import Guest

_PLAIN = qemu.command_line


def command_line(guest: Guest, *, serial: int, control: int) -> tuple[str, ...]:
    return (*_PLAIN(guest, serial=serial, control=control), *json.loads(sys.argv[1]))


if __name__ == "__main__":
    qemu.command_line = command_line
    sys.exit(main(sys.argv[2:]))
