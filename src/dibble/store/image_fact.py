"""What the build knew of an image that it wrote, for whoever has only the file later: a fact of the store.

Keys: format, arch, firmware (bios, uefi, both or empty), disk_bus, network, min_memory_mib, distro, release.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.store.facts import Facts

_HEAD = 1 << 20


def image_key(image: Path) -> tuple[str, str]:
    """Names the content of an image well enough: its size and its first MiB, which has the disk's own ids. So an image
    that was moved or copied is known again. Raises OSError."""
    with image.open("rb") as file:
        head = file.read(_HEAD)
        return str(os.fstat(file.fileno()).st_size), hashlib.sha256(head).hexdigest()


def remember_image(facts: Facts, image: Path, fact: dict[str, Any]) -> None:
    facts.put(fact, "image", *image_key(image))


def recall_image(facts: Facts, image: Path) -> dict[str, Any]:
    """Empty for an image that this store knows nothing of. Raises OSError."""
    found = facts.get("image", *image_key(image))
    return found if isinstance(found, dict) else {}
