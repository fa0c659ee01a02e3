"""Where the space of a tree goes, for DIB_SHOW_IMAGE_USAGE (contract.md 1.2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dibble.disk.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SHOWN = 10 << 20  # bytes


def report(root: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each directory and file of 10 MiB or more, or of any size with DIB_SHOW_IMAGE_USAGE_FULL, the largest
    first; none unless DIB_SHOW_IMAGE_USAGE asks for it."""
    if environment.get("DIB_SHOW_IMAGE_USAGE", "0") in ("", "0"):
        return
    full = environment.get("DIB_SHOW_IMAGE_USAGE_FULL", "0") not in ("", "0")
    for path, size in sorted(usage(root).items(), key=lambda entry: (-entry[1], entry[0])):
        if full or size >= _SHOWN:
            yield f"{human(size):>10}  {path}"


def usage(root: Path) -> dict[str, int]:
    """The bytes of each directory, with all that it holds, and of each file. Of several links the first one counts."""
    sizes: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    top = str(root)
    for folder, folders, files in os.walk(top, topdown=False):
        total = 0
        for name in files:
            status = os.lstat(f"{folder}/{name}")
            inode = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and inode in seen:
                continue
            seen.add(inode)
            sizes[f"{folder.removeprefix(top)}/{name}"] = status.st_size
            total += status.st_size
        total += sum(sizes.get(f"{folder.removeprefix(top)}/{name}", 0) for name in folders)
        sizes[folder.removeprefix(top) or "/"] = total
    return sizes
