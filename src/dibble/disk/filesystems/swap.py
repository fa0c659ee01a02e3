"""Swap space: a signature page and nothing else (kernel include/linux/swap.h, `union swap_header`)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dibble.disk.filesystems.base import FilesystemInfo

if TYPE_CHECKING:
    from dibble.disk.filesystems.base import Place
    from dibble.disk.model import Defaults, Filesystem

PAGE = 4096
"""Bytes; what mkswap(8) takes on every architecture that dibble knows but 64 KiB-page arm64 and ppc64 kernels."""
_INFO_AT = 1024  # bootbits come before it
_SIGNATURE = b"SWAPSPACE2"  # ends the first page
_LEAST_PAGES = 10  # mkswap(8), MIN_GOODPAGES


class Swap:
    info = FilesystemInfo("swap", label_length=16, holds_files=False)

    def minimum_size(self, allocated: int, files: int, node: Filesystem, defaults: Defaults) -> int:
        return _LEAST_PAGES * PAGE

    def write(self, node: Filesystem, place: Place) -> None:
        with place.image.open("r+b") as file:
            file.seek(place.extent.offset)
            file.write(header(place.extent.size, node))


def header(size: int, node: Filesystem) -> bytes:
    """The first page of a swap space of `size` bytes."""
    page = bytearray(PAGE)
    label = node.label.encode()[: Swap.info.label_length]
    # version, last page, number of bad pages, UUID, label
    struct.pack_into("<III16s16s", page, _INFO_AT, 1, size // PAGE - 1, 0, node.uuid.bytes, label)
    page[PAGE - len(_SIGNATURE) :] = _SIGNATURE
    return bytes(page)
