"""Which boot loader an image gets: the one that was named, else the one that the tree was made ready for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.errors import DiskLayoutError
from dibble.registry import load, names

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.boot.base import BootLoader

NONE = "none"
"""As a name: the image starts in a way of its own."""


def tools_of(name: str) -> tuple[str, ...]:
    """The groups of tools that a loader by this name runs. Raises UsageError for an unknown name."""
    if name in ("", NONE):
        return ()
    loader: type[BootLoader] = load("boot_loaders", name)
    return loader.tools


def loader_of(root: Path, name: str) -> BootLoader | None:
    """The loader for a finished tree; `name` is what DIB_BOOTLOADER says, empty where it says nothing.

    None for a tree that is ready for none: it boots in another way, or not at all. Raises UsageError for an unknown
    name, DiskLayoutError for a loader that was named and that the tree is not ready for.
    """
    if name == NONE:
        return None
    loaders: list[BootLoader] = [load("boot_loaders", known)() for known in ([name] if name else names("boot_loaders"))]
    ready = next((loader for loader in loaders if (name or not loader.tools) and loader.is_set_up(root)), None)
    if name and ready is None:
        raise DiskLayoutError(
            f"the tree has not been made ready for the boot loader {name}",
            hint="add the element bootloader (vm brings it), or unset DIB_BOOTLOADER",
        )
    return ready
