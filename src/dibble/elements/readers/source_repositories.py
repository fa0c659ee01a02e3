"""`source-repository-*`: what an element wants to have fetched (contract.md 3.8).

The script of the element source-repositories reads them in earnest; here they are only looked at for mistakes that do
not depend on variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.elements.readers.documents import read_text
from dibble.errors import ElementError, Where

if TYPE_CHECKING:
    from dibble.elements.model import Element

PREFIX = "source-repository-"
_SHELL = "$`\\\"'"
"""Characters by which a line becomes another one when the shell has evaluated it."""


def check(element: Element) -> None:
    """Raise ElementError, with file and line, for one that is not NAME TYPE DESTINATION LOCATION [REF] [sha256=…]."""
    for file in sorted(element.path.glob(f"{PREFIX}*")):
        if file.name.endswith("~") or not file.is_file():
            continue
        for number, line in enumerate(read_text(file, element.name).split("\n"), start=1):
            words = line.split()
            if not words or line.startswith("#") or any(letter in line for letter in _SHELL):
                continue
            if words[-1].startswith("sha256="):
                words.pop()
            where = Where(file=file, line=number, element=element.name)
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
