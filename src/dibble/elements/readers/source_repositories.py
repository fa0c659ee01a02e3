"""`source-repository-*`: what an element wants to have fetched (contract.md 3.8).

The script of the element source-repositories reads them in earnest; here they are only looked at for mistakes that do
not depend on variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.elements.readers.documents import read_text
from dibble.errors import ElementError, Where
from dibble.events import Note

if TYPE_CHECKING:
    from dibble.elements.model import Element

PREFIX = "source-repository-"
TYPES = ("git", "tar", "file", "package")
_SHELL = "$`\\\"'"
"""Characters by which a line becomes another one when the shell has evaluated it."""


def check(element: Element) -> tuple[Note, ...]:
    """Warnings about lines of an unknown type. Raises ElementError, with file and line, for one that is not
    NAME TYPE DESTINATION LOCATION [REF] [sha256=…]."""
    notes = []
    for file in sorted(element.path.glob(f"{PREFIX}*")):
        if file.name.endswith("~") or not file.is_file():
            continue
        read_text(file, element.name)  # which refuses what is no text, and hides how its lines end
        for number, line in enumerate(file.read_bytes().decode().split("\n"), start=1):
            where = Where(file=file, line=number, element=element.name)
            words = _words(line, where)
            # DIB_REPOTYPE_NAME may say another one, and elements may set it.
            if words and words[1] not in TYPES:
                text = f'{words[0]} is of the type "{words[1]}"; what can be fetched is {", ".join(TYPES)}'
                notes.append(Note(text=f"{where}: {text}", level="warning"))
    return tuple(notes)


def _words(line: str, where: Where) -> list[str]:
    """What a line says; nothing where it is empty, or is for the shell to evaluate. Raises ElementError."""
    if line.endswith("\r"):
        raise ElementError(
            "the line ends as on another system (CR LF), which would be a part of its last word",
            hint=f"sed -i 's/\\r$//' {where.file}",
            where=where,
        )
    words = line.split()
    if not words or line.startswith("#") or any(letter in line for letter in _SHELL):
        return []
    if words[-1].startswith("sha256="):
        words.pop()
    if len(words) not in (4, 5):
        raise ElementError(
            f'"{line}" is not NAME TYPE DESTINATION LOCATION [REF]',
            hint="see the README of source-repositories",
            where=where,
        )
    if not words[2].startswith("/"):
        raise ElementError(
            f"the destination of {words[0]}, {words[2]}, does not begin with /",
            hint="the destination is a path in the image",
            where=where,
        )
    return words
