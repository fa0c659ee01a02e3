"""Whether a build may keep temporary files in memory (contract.md 7.4).

DIB looks at all the memory that a machine has; what counts is what is available (D48).
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
MEMINFO = "/proc/meminfo"
MEMORY_OF_A_BUILD = 2 << 30
"""Bytes that must be available for each build that runs beside another; what DIB asks for a build in memory."""


@dataclass(frozen=True, slots=True)
class Memory:
    """`allowed` says whether temporary files may be kept in memory, at most `limit` bytes; `reason` why not."""

    allowed: bool
    limit: int = 0
    reason: str = ""


def memory_for(available: int, *, no_tmpfs: bool, min_gib: int, gentoo_profile: str = "") -> Memory:
    """The decision for so many bytes of available memory; half of them may be used.

    `min_gib` GiB must be available. A hardened profile of Gentoo does not build in memory (contract.md 1.2).
    """
    if no_tmpfs:
        return Memory(False, reason="--no-tmpfs")
    if "hardened" in gentoo_profile:
        return Memory(False, reason=f"the profile {gentoo_profile}")
    if available < min_gib * GIB:
        said = f"{available / GIB:.1f} GiB of memory are available, and --min-tmpfs asks for {min_gib}"
        return Memory(False, reason=said)
    return Memory(True, limit=available // 2)


def available_bytes() -> int:
    """MemAvailable of proc_meminfo(5); 0 where it cannot be read."""
    try:
        with open(MEMINFO, encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        return 0
    return 0


def builds_at_once(cores: int, available: int) -> int:
    """How many builds run beside each other with so many cores and bytes of available memory; at least one."""
    return max(1, min(cores, available // MEMORY_OF_A_BUILD))
