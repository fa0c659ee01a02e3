"""What is wrong with an entry of a remote cache; no caller outside it sees these."""

from __future__ import annotations


class EntryRefused(Exception):
    """An entry is truncated, forged, malformed or not for us. The text continues a sentence that names the entry."""


class OtherVersion(EntryRefused):
    """An entry was made by another version of dibble: nothing is wrong with it, but it says nothing to this one."""


def printable(text: str) -> str:
    """A text with names out of an entry, as it may go to a terminal or a log."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
