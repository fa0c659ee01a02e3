"""One entry of a tree that was read from a file system, as it goes into an archive."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type

_KEPT = ("user.", "security.", "system.posix_acl_")
_NEVER = ("security.selinux",)  # labels are those of the policy that the new image has


def is_kept(name: str) -> bool:
    """Whether an extended attribute goes with its entry."""
    return name.startswith(_KEPT) and name not in _NEVER


MOST_SPARSE = 16
"""A file that says it is more than this many times as large as its file system is taken for damaged. Holes make files
larger than what they lie in (/var/log/lastlog), but in an archive each of their bytes counts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`path` is relative to the file system's root (empty for that itself), `mode` with the bits of the kind (stat(2)).

    `inode` is the same for hard links. `content` holds a file's bytes, None for an empty one; `device` is a node's
    major and minor number; `mtime` is in seconds.
    """

    path: str
    mode: int
    uid: int
    gid: int
    inode: int
    mtime: float = 0.0
    content: Path | None = None
    link: str = ""
    device: tuple[int, int] = (0, 0)
    attributes: Mapping[str, bytes] = field(default_factory=dict)
