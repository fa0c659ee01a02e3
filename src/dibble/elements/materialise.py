"""Writing a hook tree into a directory, where scripts will find it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from dibble.elements.hooks import normal_mode

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.elements.model import HookTree


def write_tree(tree: HookTree, destination: Path) -> None:
    """Copy every directory, file and link of the tree under `destination`, which is made if it does not exist.

    Permission bits are those that `digest` counts, so neither the umask of this process nor that of the checkout
    shows; modification times are kept. Existing files are replaced. Owners are those of this process.
    """
    destination.mkdir(parents=True, exist_ok=True)
    for name, bits in tree.directories.items():
        (destination / name).mkdir(parents=True, exist_ok=True)
        (destination / name).chmod(bits | 0o700)  # until all is written
    for name, file in tree.files.items():
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.exists():
            target.unlink()
        shutil.copy2(file.path, target, follow_symlinks=False)
        if not file.path.is_symlink():
            target.chmod(normal_mode(file))
    for name in sorted(tree.directories, reverse=True):  # from the inside: one may be read-only
        (destination / name).chmod(tree.directories[name])
