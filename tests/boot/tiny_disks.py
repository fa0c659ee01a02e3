"""Disks of a few bytes that boot in a moment: a boot sector that says something on the serial line."""

from __future__ import annotations

_TEXT_AT = 96

# 8086 code: send the text, byte by byte, as fast as the first serial port (0x3f8) takes it.
_SAY = bytes.fromhex(
    "fa 31c0 8ed8"  # cli; ds = 0
    "be 607c"  # si = the text; a BIOS puts the boot sector to 0x7c00
    "ac 84c0 7412"  # next: al = byte at si; the end when it is 0
    "88c4"  # ah = al
    "ba fd03 ec a820 74fb"  # wait until the line status says "transmitter empty"
    "ba f803 88e0 ee"  # send
    "ebe9"  # next
)
STAY = bytes.fromhex("f4 ebfd")  # hlt, for ever
RESTART = bytes.fromhex("b0fe e664 f4 ebfd")  # the keyboard controller's reset
# Write the boot sector to the second sector too, through the BIOS: int 0x13, ah = 3, cylinder 0, head 0, sector 2.
WRITE = bytes.fromhex("31c0 8ed8 8ec0 fb bb 007c b90200 b600 b80103 cd13")


def disk(text: str, then: bytes = STAY, *, first: bytes = b"", size: int = 1 << 20) -> bytes:
    """A raw disk whose boot sector runs `first`, says `text` and goes on with `then`."""
    code = (first + _SAY + then).ljust(_TEXT_AT, b"\0")
    assert len(code) == _TEXT_AT
    sector = (code + text.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    assert len(sector) == 512
    return sector.ljust(size, b"\0")
