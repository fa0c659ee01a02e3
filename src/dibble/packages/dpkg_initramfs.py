"""One initramfs instead of one for each package that asks for it.

While packages are configured, a stub stands over `update-initramfs` by a bind mount, which leaves no trace in the
image; it notes that it was called. Afterwards the real program runs once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from dibble.sandbox import mounts
from dibble.sandbox.memory import available_bytes
from dibble.sandbox.syscalls import MNT_DETACH, umount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "usr/sbin/update-initramfs"
INITRAMFS_PACKAGES = ("initramfs-tools", "dracut")
"""They ship the program."""
_NOTE = "dev/shm/.dibble-update-initramfs"
"""In the private /dev of the target, so it never gets into an image."""

# Answers --version as initramfs-tools does (kernel hooks ask); anything else is put off.
_STUB = f"""#!/bin/sh
if [ "$1" = --version ]; then
    echo "update-initramfs from initramfs-tools 0"
    exit 0
fi
echo "$*" >> /{_NOTE}
echo "update-initramfs: put off until all packages are configured"
"""


_SIZE = 256 << 20
"""Bytes that the tree of an initramfs with most modules takes (MODULES=most; firmware adds to it)."""


class PutOff:
    """Whether an initramfs has been asked for while the stub stood."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def around(self, root: Path) -> Iterator[None]:
        """Let the stub stand in for the program while the block runs, if `root` has the program."""
        program = root / PROGRAM
        if not program.is_file() or program.is_symlink():
            yield
            return
        stub = root / "dev/shm/.dibble-stub"
        note = root / _NOTE
        note.unlink(missing_ok=True)
        stub.write_text(_STUB)
        stub.chmod(0o755)
        mounts.bind(stub, program, recursive=False)
        try:
            yield
        finally:
            umount(program, MNT_DETACH)
            stub.unlink()
            self.asked |= note.exists()
            note.unlink(missing_ok=True)


@contextlib.contextmanager
def quick_environment(root: Path, *, in_memory: bool = True) -> Iterator[dict[str, str]]:
    """Variables with which initramfs-tools makes the same file in less time, while the block runs.

    It works in memory where that is allowed and there is enough. Multithreaded zstd gives the same bytes for any number
    of threads; only `--single-thread` is another format (zstd(1)), which nobody uses here.
    """
    variables = {"ZSTD_NBTHREADS": str(os.cpu_count() or 1)}
    place = root / "dev/shm/.dibble-initramfs"
    if not (root / "usr/sbin/mkinitramfs").exists() or not in_memory or available_bytes() < 4 * _SIZE:
        yield variables
        return
    place.mkdir(exist_ok=True)
    try:
        yield {**variables, "TMPDIR": f"/{place.relative_to(root)}"}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def command(root: Path) -> list[str] | None:
    """The command that makes, or makes again, the initramfs of every kernel; None when `root` cannot or need not."""
    if not os.access(root / PROGRAM, os.X_OK) or not (root / "boot").is_dir():
        return None
    made = any(path.name.startswith("initrd.img-") for path in (root / "boot").iterdir())
    return ["update-initramfs", "-u" if made else "-c", "-k", "all"]
