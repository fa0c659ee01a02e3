"""LZO1X as btrfs has it, unpacked (kernel Documentation/staging/lzo.rst; fs/btrfs/lzo.c tells the segments)."""

from __future__ import annotations

import struct

_SECTION = 4096
"""A length never crosses a multiple of a sector, the rest of which is left out."""


class BadData(ValueError):
    """This is not what a compressor has made."""


def segments(data: bytes, size: int, sector: int = _SECTION) -> bytes:
    """At most `size` bytes out of an extent: its length, then segments, each a length and a stream of its own."""
    try:
        (total,) = struct.unpack_from("<I", data)
        found = bytearray()
        at = 4
        while at < min(total, len(data)) and len(found) < size:
            if sector - at % sector < 4:
                at += sector - at % sector
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
            if not 0 < length <= len(data) - at:
                raise BadData("a segment is cut off")
            found += unpacked(data[at : at + length], sector)
            at += length
    except (IndexError, struct.error) as error:
        raise BadData("a segment is cut off") from error
    return bytes(found[:size])


def unpacked(data: bytes, most: int) -> bytes:
    """One stream, of at most `most` bytes. Raises BadData, IndexError where it is cut off."""
    out = bytearray()
    at = 0
    state = 0  # literals that the last instruction copied: 0 to 3, and 4 for a longer run
    if data[0] > 17:
        count = data[0] - 17
        out += _literals(data, 1, count)
        at, state = 1 + count, min(count, 4)
    while True:
        word = data[at]
        at += 1
        if word < 16 and state == 0:
            count, at = _length(data, at, word, 15)
            count += 3
            out += _literals(data, at, count)
            at, state = at + count, 4
            _check(out, most)
            continue
        if word < 16:
            distance = (data[at] << 2) + (word >> 2) + (2049 if state == 4 else 1)
            at += 1
            count, state = (3 if state == 4 else 2), word & 3
        elif word >= 64:
            distance = (data[at] << 3) + (word >> 2 & 7) + 1
            at += 1
            count, state = (word >> 5) + 1, word & 3
        else:
            mask = 31 if word >= 32 else 7
            count, at = _length(data, at, word & mask, mask)
            count += 2
            low = data[at] | data[at + 1] << 8
            at += 2
            state = low & 3
            distance = (low >> 2) + 1
            if word < 32:
                distance = ((word & 8) << 11) + (low >> 2) + 16384
                if distance == 16384:
                    return bytes(out)
        if distance > len(out):
            raise BadData("it refers to what is before its beginning")
        for _ in range(count):
            out.append(out[-distance])
        out += _literals(data, at, state)
        at += state
        _check(out, most)


def _length(data: bytes, at: int, value: int, mask: int) -> tuple[int, int]:
    """A count that goes on in further bytes when its bits are zero; and where reading goes on."""
    if value:
        return value, at
    count = mask
    while data[at] == 0:
        count += 255
        at += 1
    return count + data[at], at + 1


def _literals(data: bytes, at: int, count: int) -> bytes:
    if at + count > len(data):
        raise BadData("it is cut off")
    return data[at : at + count]


def _check(out: bytearray, most: int) -> None:
    if len(out) > most:
        raise BadData(f"it gives more than {most} bytes")
