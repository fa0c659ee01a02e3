#!/usr/bin/env python3
"""Puts the header of U-Boot's legacy image format before a file (U-Boot, include/image.h, struct legacy_img_hdr).

uimage.py KIND ARCHITECTURE NAME LOAD ENTRY SOURCE TARGET, where KIND is kernel or ramdisk.
"""

import os
import struct
import sys
import zlib
from pathlib import Path

MAGIC = 0x27051956
LINUX = 5
ARCHITECTURES = {"armhf": 2, "armel": 2, "arm64": 22}
KINDS = {"kernel": 2, "ramdisk": 3}
NOT_COMPRESSED = 0  # an ARM kernel decompresses itself, and Linux its ramdisk
NAME_LENGTH = 32


def header(kind: str, architecture: str, name: str, load: int, entry: int, data: bytes) -> bytes:
    """The 64 bytes of the header; its own checksum counts as zero while it is computed."""

    def packed(checksum: int) -> bytes:
        made = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
        words = (MAGIC, checksum, made, len(data), load, entry, zlib.crc32(data))
        codes = (LINUX, ARCHITECTURES[architecture], KINDS[kind], NOT_COMPRESSED)
        return struct.pack(">7I4B32s", *words, *codes, name.encode()[: NAME_LENGTH - 1])

    return packed(zlib.crc32(packed(0)))


def main() -> None:
    kind, architecture, name, load, entry, source, target = sys.argv[1:]
    data = Path(source).read_bytes()
    Path(target).write_bytes(header(kind, architecture, name, int(load, 0), int(entry, 0), data) + data)


if __name__ == "__main__":
    main()
