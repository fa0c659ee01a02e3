"""Paragraphs of `Name: value` fields, as Debian writes status files, control files and sources (deb822(5)).

Our own reader, because python-debian takes 0.2 s for one status file and keeps no line numbers; the tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.errors import PackageError, Where

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paragraph:
    """`fields` in the file's order; further lines of a value keep their indentation after a newline.

    `line` is that of the first field, from 1.
    """

    fields: dict[str, str]
    line: int = 1

    def get(self, name: str) -> str:
        """The value of a field, by its exact name; empty when there is none."""
        return self.fields.get(name, "")

    def text(self) -> str:
        """The paragraph as it is written, with its final newline and no empty line."""
        return "".join(
            f"{name}: {value}\n" if value and value[0] != "\n" else f"{name}:{value}\n"
            for name, value in self.fields.items()
        )


def paragraphs(data: bytes, where: Path | str) -> Iterator[Paragraph]:
    """Each paragraph of a file. Comment lines are left out. Raises PackageError with the line of what is no field.

    Bytes that are not UTF-8 survive through surrogate escapes.
    """
    fields: dict[str, str] = {}
    name = ""
    began = 1
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        if line.startswith("#"):
            continue
        if not line or line.isspace():
            if fields:
                yield Paragraph(fields, began)
                fields = {}
            name = ""
        elif line[0] in " \t":
            if not name:
                raise PackageError("a line that goes on must follow a field", where=Where(file=where, line=number))
            fields[name] += "\n" + line.rstrip()
        else:
            name, colon, value = line.partition(":")
            if not colon or not name or any(sign in name for sign in " \t"):
                raise PackageError(f"this is no field: {line[:60]}", where=Where(file=where, line=number))
            if not fields:
                began = number
            fields[name] = value.strip()
    if fields:
        yield Paragraph(fields, began)
