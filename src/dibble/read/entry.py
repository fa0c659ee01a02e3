"""One entry of a tree that was read from a file system, as it goes into an archive."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type


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
