"""Text from builds, made fit for a page, a table or a terminal: no byte of a log steers what shows it."""

from __future__ import annotations

import re

# Control sequences (CSI, OSC and the other strings, two-byte escapes): ECMA-48, 5.3 to 5.6 and 8.3.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]"
)
_LINE_END = re.compile(r"\r+\n|\r")
_PICTURES = {number: 0x2400 + number for number in range(32) if chr(number) not in "\t\n"}
"""Control characters become the pictures that Unicode has of them (U+2400), which also XML 1.0 can hold."""
_PICTURES |= {127: 0x2421} | {number: 0xFFFD for number in (*range(0x80, 0xA0), 0xFFFE, 0xFFFF)}
_PICTURES |= {number: 0xFFFD for number in range(0xD800, 0xE000)}  # lone surrogates
_PICTURES |= {number: 0xFFFD for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Those that turn the direction of what follows would make a line read as what it is not."""


def readable(text: str | bytes) -> str:
    """Lines without colours and other sequences; bytes that are no UTF-8 read `\\xff`, other controls as pictures."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return _LINE_END.sub("\n", _SEQUENCE.sub("", text)).translate(_PICTURES)


def one_line(text: str) -> str:
    """As `readable`, with each run of white space as one blank."""
    return " ".join(readable(text).split())
