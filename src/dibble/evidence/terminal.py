"""Plain text from what a guest writes to a terminal: without the control sequences, however they are cut into reads.

The sequences are those of ECMA-48 (CSI, OSC, DCS …), as firmware, GRUB, systemd and shells send them. No screen is
kept: a jump of the cursor becomes a line end, so that every message begins a line of its own.
"""

from __future__ import annotations

import codecs
import re

# No terminal sends longer strings; beyond it an unclosed one counts as text.
_STRING = r"[\]PX^_][^\x07\x1b\n]{0,1024}"
_CSI = r"\[[0-?]{0,64}[ -/]{0,8}"
_SEQUENCE = re.compile(
    rf"\x1b{_CSI}(?P<final>[@-~])"
    rf"|\x1b{_STRING}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]{0,8}[0-OQ-WYZ\\`-~]"
    r"|(?P<end>\r+\n?)"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
    r"|\x1b"
)
_UNFINISHED = re.compile(rf"\x1b(?:{_CSI}|{_STRING}\x1b?|[ -/]{{0,8}})?\Z|\r+\Z")
_JUMPS = frozenset("Hf")  # CSI: cursor to a place (CUP, HVP)


class TerminalText:
    """Takes bytes as they come and gives back the text that is certain; the rest waits for more."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = ""

    def feed(self, data: bytes) -> str:
        """The plain text that `data` completes. Line ends are `\\n`."""
        text = self._waiting + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._waiting = text[end:]
        return _plain(text[:end])

    def rest(self) -> str:
        """What is left when nothing more will come."""
        text, self._waiting = self._waiting + self._decoder.decode(b"", final=True), ""
        return _plain(text)


def _plain(text: str) -> str:
    return _SEQUENCE.sub(lambda match: "\n" if match["end"] or match["final"] in _JUMPS else "", text)
