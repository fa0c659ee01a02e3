"""Which ids a user may use in a namespace: subuid(5), subgid(5), user_namespaces(7)."""

from __future__ import annotations

import functools
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from dibble.errors import HostError

NEEDED = 65536
"""Ids 0..65535 exist in the target: 65534 is nobody, and a distribution may hand out any below 60000."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """`count` ids from `inside` in the namespace stand for those from `outside`, as one line of uid_map."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True)
class IdMaps:
    """The maps to write; `privileged` means that we may write them ourselves (CAP_SETUID), without newuidmap."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    privileged: bool


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_ranges(file: Path, uid: int) -> list[tuple[int, int]]:
    """(first id, count) for each line of `file` that belongs to the user, by name or number, in file order."""
    names = {user_name(uid), str(uid)}
    found: list[tuple[int, int]] = []
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[0] in names and parts[1].isdigit() and parts[2].isdigit():
            found.append((int(parts[1]), int(parts[2])))
    return found


@functools.cache
def maps_for_current_user() -> IdMaps:
    """The identity for root, one's own id and the subordinate ones for an ordinary user.

    Found out once: inside a namespace that this process entered it still says what stands for what outside.
    Raises HostError, with the command that adds them, when there are fewer than 65536 ids.
    """
    if os.getuid() == 0:
        return IdMaps(_identity("uid"), _identity("gid"), privileged=True)
    return IdMaps(
        _subordinate(Path("/etc/subuid"), os.getuid()), _subordinate(Path("/etc/subgid"), os.getgid()), privileged=False
    )


def _identity(kind: str) -> tuple[IdRange, ...]:
    ranges = []
    for line in Path(f"/proc/self/{kind}_map").read_text().splitlines():
        inside, _, count = (int(part) for part in line.split())
        ranges.append(IdRange(inside, inside, count))
    return tuple(ranges)


def _subordinate(file: Path, own_id: int) -> tuple[IdRange, ...]:
    ranges = [IdRange(0, own_id, 1)]
    granted = read_ranges(file, os.getuid())
    for first, count in granted:
        ranges.append(IdRange(ranges[-1].inside + ranges[-1].count, first, count))
    total = ranges[-1].inside + ranges[-1].count
    if total < NEEDED:
        name = user_name(os.getuid())
        has = f"only {total - 1}" if granted else "no"
        raise HostError(
            f"user {name} has {has} subordinate ids in {file}; a build needs {NEEDED - 1}",
            hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
            " (take another range if those ids are in use)",
        )
    return tuple(ranges)


def map_text(ranges: tuple[IdRange, ...]) -> str:
    """The text to write to uid_map or gid_map."""
    return "".join(f"{r.inside} {r.outside} {r.count}\n" for r in ranges)


def helper_arguments(ranges: tuple[IdRange, ...]) -> list[str]:
    """The arguments of newuidmap(1) or newgidmap(1) after the process id."""
    return [str(number) for r in ranges for number in (r.inside, r.outside, r.count)]
