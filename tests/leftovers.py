"""What a killed build must not leave: processes and mounts."""

from __future__ import annotations

import time
from pathlib import Path

GONE_S = 10.0
"""How long the kernel may take to end the processes of a namespace."""


def processes_with(mark: str) -> list[str]:
    """The commands of all processes that have the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (OSError, ValueError):
                continue  # it ended, or is somebody else's
    return found


def left_after_a_while(mark: str) -> list[str]:
    """The processes with the mark that are still there when the kernel has had its time."""
    end = time.monotonic() + GONE_S
    while (left := processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()
