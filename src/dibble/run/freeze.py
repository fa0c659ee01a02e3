"""Turning a step's upper directory into a layer: normalised, measured and identified.

Times that fall into the build become the build's epoch, so that a layer does not tell when it was made. What the step
changed in the target is digested where that is cheap; a step that changed nothing leaves the tree's identity as it
was, and later steps stay cached.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.plan.manifest import fingerprint, goal_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_OVERLAY_XATTRS = b"user.overlay."
_OPAQUE = "user.overlay.opaque"
DIGEST_LIMIT = 64 << 20
"""Layers with more bytes of content are known by their key: reading them again would cost more than it can save."""


@dataclass(slots=True)
class Frozen:
    """What an upper directory holds. `hooks` maps changed paths of the hooks tree to content digests."""

    bytes: int = 0
    changes_target: bool = False
    digest: str | None = None
    hooks: dict[str, str | None] = field(default_factory=dict)
    hooks_replaced: bool = False
    """A directory of the hooks tree was removed or replaced; its paths are not listed one by one."""


def freeze(upper: Path, lowers: Sequence[Path], *, began: float, epoch: int) -> Frozen:
    """Normalise the times in `upper` and say what it changes against `lowers` (topmost first).

    `began` and `epoch` are seconds since 1970; modification times from `began` on become `epoch`. Linear in the
    number of files of the layer, and in their bytes up to DIGEST_LIMIT.
    """
    frozen = Frozen()
    lines: list[bytes] = []
    root = os.fsencode(upper)
    below = [os.fsencode(path) for path in lowers]
    for relative, path, status in _walk(root):
        if status.st_mtime >= began:
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            frozen.bytes += status.st_size
        top, _, rest = relative.partition(b"/")
        if top == b"hooks" and rest:
            _note_hook(frozen, rest, path, status, [root, *below])
        if top == b"mnt" and not (stat.S_ISDIR(status.st_mode) and _same_directory(relative, path, status, below)):
            frozen.changes_target = True
            if frozen.bytes <= DIGEST_LIMIT:
                lines.append(_line(relative, path, status))
    if frozen.bytes <= DIGEST_LIMIT:
        frozen.digest = hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()
    return frozen


def is_whiteout(status: os.stat_result) -> bool:
    """Overlayfs marks a removed name with a character device 0:0 (Documentation/filesystems/overlayfs.rst)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Every entry below a directory, children before their directory: setting a child's time changes its parent's."""
    pending: list[tuple[bytes, bytes, os.stat_result | None]] = [(b"", root, None)]
    while pending:
        relative, path, status = pending.pop()
        if status is not None:
            yield relative, path, status
            continue
        if relative:
            pending.append((relative, path, os.lstat(path)))
        with os.scandir(path) as entries:
            for entry in entries:
                name = relative + b"/" + entry.name if relative else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((name, entry.path, None))
                else:
                    yield name, entry.path, entry.stat(follow_symlinks=False)


def _note_hook(frozen: Frozen, rest: bytes, path: bytes, status: os.stat_result, trees: Sequence[bytes]) -> None:
    """Note a changed path of the hooks tree; `trees` are the overlay's directories, topmost first."""
    name = os.fsdecode(rest)
    if is_whiteout(status):
        frozen.hooks[name] = None
        frozen.hooks_replaced |= True
    elif stat.S_ISDIR(status.st_mode):
        frozen.hooks_replaced |= _is_opaque(path)
    else:
        goal = _goal(name, path, trees) if stat.S_ISLNK(status.st_mode) else None
        frozen.hooks[name] = fingerprint(Path(os.fsdecode(path)), goal)


def _goal(name: str, link: bytes, trees: Sequence[bytes]) -> Path | None:
    """The file of the hooks tree to which a link in it leads, in the topmost directory that has it."""
    goal = goal_of(name, os.fsdecode(os.readlink(link)))  # noqa: PTH115
    if not goal.startswith(("/", "..")):
        for tree in trees:
            found = Path(os.fsdecode(tree)) / "hooks" / goal
            if found.is_file():
                return found
    return None


def _is_opaque(path: bytes) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _same_directory(relative: bytes, path: bytes, status: os.stat_result, below: list[bytes]) -> bool:
    """True for a directory that was only copied up: one of the layers below has it with the same owner and mode."""
    if _is_opaque(path):
        return False
    for lower in below:
        try:
            found = os.lstat(lower + b"/" + relative)
        except OSError:
            continue
        return (found.st_mode, found.st_uid, found.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    return False


def _line(relative: bytes, path: bytes, status: os.stat_result) -> bytes:
    """One entry as a line: type and mode, owner, content or target, extended attributes, name."""
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        content = os.readlink(path)  # noqa: PTH115
    elif stat.S_ISREG(mode):
        with open(path, "rb") as file:  # noqa: PTH123
            content = hashlib.file_digest(file, "sha256").digest()
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        content = str(status.st_rdev).encode()
    else:
        content = b"opaque" if _is_opaque(path) else b""
    attributes = b""
    if not stat.S_ISLNK(mode):
        for name in sorted(os.fsencode(n) for n in os.listxattr(path, follow_symlinks=False)):
            if not name.startswith(_OVERLAY_XATTRS):
                attributes += name + b"=" + os.getxattr(path, name, follow_symlinks=False) + b";"
    fields = (f"{mode:o} {status.st_uid} {status.st_gid}".encode(), content.hex().encode(), attributes, relative)
    return b"\0".join(fields)
