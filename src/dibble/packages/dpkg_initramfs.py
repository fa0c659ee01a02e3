"""One initramfs instead of one for each package that asks for it.

While packages are configured, a stub stands over `update-initramfs` by a bind mount, which leaves no trace in the
image; it notes that it was called. Afterwards the real program runs once.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from dibble.sandbox import mounts
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


def command(root: Path) -> list[str] | None:
    """The command that makes, or makes again, the initramfs of every kernel; None when `root` cannot or need not."""
    if not os.access(root / PROGRAM, os.X_OK) or not (root / "boot").is_dir():
        return None
    made = any(path.name.startswith("initrd.img-") for path in (root / "boot").iterdir())
    return ["update-initramfs", "-u" if made else "-c", "-k", "all"]
