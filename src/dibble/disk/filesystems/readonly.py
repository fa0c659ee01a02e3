"""erofs and squashfs: read-only and compressed, made by their programs from a stream of the tree.

The stream has one order, and times to the nanosecond for erofs; a directory would be taken in the order in which the
host lists it. What the stream or the file system has no place for is an error, and nothing is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.disk.filesystems.apart import content_or_nothing, made_apart
from dibble.disk.filesystems.base import FilesystemInfo, refused
from dibble.errors import OutputError, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem
    from dibble.sandbox.toolbox import Toolbox
    from dibble.tree.inodes import Inode

_LEAST = 1 << 20
_PIPE = 1 << 20  # bytes; what pipe(7) gives everyone, so that neither side waits for each 64 KiB of the other
_NAMESPACES = ("user.", "trusted.", "security.")  # of attributes that squashfs knows
_ACLS = ("system.posix_acl_",)
_NOTHING: Mapping[bytes, Path] = MappingProxyType({})


class Erofs:
    info = FilesystemInfo("erofs", label_length=15, tools=("filesystems",))

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """How far the content shrinks is not known before: what is too small shows when it is written."""
        return _LEAST

    def write(self, node: Filesystem, place: Place) -> None:
        with made_apart(node, place) as path:
            try:
                write_erofs(
                    place.content, path, place.toolbox,
                    label=node.label, uuid=str(node.uuid), options=node.options, epoch=place.epoch,
                )  # fmt: skip
            except ToolFailed as error:
                raise refused(node, "mkfs.erofs", error.output) from error


class Squashfs:
    info = FilesystemInfo("squashfs", label_length=0)

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        """How far the content shrinks is not known before: what is too small shows when it is written."""
        return _LEAST

    def write(self, node: Filesystem, place: Place) -> None:
        with made_apart(node, place) as path:
            try:
                write_squashfs(place.content, path, place.toolbox, options=node.options, epoch=place.epoch)
            except ToolFailed as error:
                raise refused(node, "tar2sqfs", error.output) from error


def write_erofs(
    content: Path | None,
    file: Path,
    toolbox: Toolbox,
    *,
    label: str,
    uuid: str,
    epoch: int,
    options: Sequence[str] = (),
    emptied: Collection[bytes] = (),
) -> None:
    """Write the tree `content`, or nothing, as erofs into `file`, which mkfs.erofs(1) of the group `filesystems` makes.

    `emptied` is as for `inodes`. Raises OutputError for what it cannot hold, ToolFailed.
    """
    argv = ["mkfs.erofs", "--quiet", "--tar=f", f"-T{epoch}", "--mkfs-time", "-U", uuid]
    argv += ["-L", label, *options] if label else options
    _pack([*argv, toolbox.path(file)], content, file, toolbox, epoch, "erofs", emptied)


def write_squashfs(
    content: Path | None,
    file: Path,
    toolbox: Toolbox,
    *,
    epoch: int,
    options: Sequence[str] = (),
    emptied: Collection[bytes] = (),
    left_out: Callable[[str], None] | None = None,
    replaced: Mapping[bytes, Path] = _NOTHING,
) -> None:
    """Write the tree `content`, or nothing, as squashfs into `file`, which tar2sqfs(1) makes; zstd unless `options`
    name another compressor. `emptied` is as for `inodes`; files of the tree named in `replaced` (`etc/fstab`) get the
    content of others.

    `left_out` is told the names of files whose access control lists are not written; without it they are an error.
    Raises OutputError for what it cannot hold, ToolFailed.
    """
    argv = ["tar2sqfs", "--quiet", "--force", "--no-skip"]
    if not any(option.startswith(("-c", "--compressor")) for option in options):
        argv += ["--compressor", "zstd"]
    words = [*argv, *options, toolbox.path(file)]
    _pack(words, content, file, toolbox, epoch, "squashfs", emptied, left_out, replaced)


def _pack(  # noqa: PLR0917 - internal
    argv: Sequence[str],
    content: Path | None,
    file: Path,
    toolbox: Toolbox,
    epoch: int,
    kind: str,
    emptied: Collection[bytes],
    left_out: Callable[[str], None] | None = None,
    replaced: Mapping[bytes, Path] = _NOTHING,
) -> None:
    from dibble.tree.inodes import inodes
    from dibble.tree.pax import stream

    with content_or_nothing(content, file) as tree:
        everything = inodes(tree, epoch, emptied=emptied)
        _check(everything, kind, left_out)
        top = os.fsencode(tree)
        for inode in everything if replaced else ():
            if other := replaced.get(inode.path.removeprefix(top + b"/")):
                inode.path, inode.size = os.fsencode(other), other.stat().st_size
        _run_on(argv, toolbox, stream(everything[0], without=_ACLS if left_out else ()))


def _check(everything: Sequence[Inode], kind: str, left_out: Callable[[str], None] | None) -> None:
    """Refuse what would be lost, or tell of it."""
    from dibble.tree.inodes import attributes
    from dibble.tree.pax import HOLDS

    for inode in everything:
        name = os.fsdecode(inode.path)
        if inode.kind not in HOLDS:
            raise OutputError(
                f"{name} is a socket, which is not written into {kind}",
                hint="remove it in a cleanup.d script of an element: whoever listens to it makes it anew",
            )
        if kind != "squashfs":
            continue
        for attribute, _ in attributes(inode.path):
            if left_out and attribute.startswith(_ACLS):
                left_out(name)
            elif not attribute.startswith(_NAMESPACES):
                raise OutputError(
                    f"{name} has the attribute {attribute}, for which squashfs has no place",
                    hint="remove it with setfacl or setfattr in an element, or take erofs",
                )


def _run_on(argv: Sequence[str], toolbox: Toolbox, pieces: Iterator[bytes]) -> None:
    """Run a program with a stream as its input. Raises ToolFailed with what it said."""
    with tempfile.TemporaryFile() as said:
        with toolbox.spawn(argv, stdin=True, output_file=said) as running:
            assert running.stdin is not None
            with contextlib.suppress(OSError):  # the user has enough of pipes: it goes slower
                fcntl.fcntl(running.stdin, fcntl.F_SETPIPE_SZ, _PIPE)
            with contextlib.suppress(BrokenPipeError):  # it says itself why it reads no more
                for piece in pieces:
                    running.stdin.write(piece)
                running.stdin.close()
            status = running.wait()
        if status:
            said.seek(0)
            raise ToolFailed(tuple(argv), status, said.read().decode(errors="replace"))
