"""Files in the image, besides fstab, by which the system and its initramfs find the devices of volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.disk.model import Graph

_HEADER = "# Made with the image, from its block-device description.\n"
_FIRST = {"mdadm.conf": "MAILADDR root\n"}
"""What a file has to say besides: mdadm's monitor fails when it knows nobody to tell."""
_PROGRAMS = ("usr/sbin", "sbin", "usr/bin", "bin")


@dataclass(frozen=True, slots=True)
class SystemFiles:
    """`lines` by file; `programs` that must be in the image, each with the element that brings it."""

    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        """All of it as texts, by file; nothing for a disk without volumes."""
        programs = {"programs": " ".join(self.programs)} if self.programs else {}
        return {**programs, **{name: "\n".join(lines) for name, lines in self.lines.items()}}

    def missing_from(self, root: Path) -> dict[str, str]:
        """The programs that a tree lacks, and the elements that bring them."""
        return {
            program: element
            for program, element in self.programs.items()
            if not any((root / place / program).is_file() for place in _PROGRAMS)
        }


def system_files(graph: Graph) -> SystemFiles:
    """What the volumes of a disk need in its system, in their order."""
    lines: dict[str, tuple[str, ...]] = {}
    programs: dict[str, str] = {}
    for volume in graph.volumes:
        if (system := volume.system) is None:
            continue
        programs[system.program] = system.element
        if system.file:
            lines[system.file] = (*lines.get(system.file, ()), system.line)
    return SystemFiles(lines, programs)


def path_in(root: Path, name: str) -> str:
    """Where the distribution in `root` has a file: Debian and its kin keep mdadm's in a directory of its own."""
    return f"/etc/mdadm/{name}" if name == "mdadm.conf" and (root / "etc" / "mdadm").is_dir() else f"/etc/{name}"


def with_lines(name: str, old: str | None, lines: tuple[str, ...]) -> str:
    """A file's text with our lines at the end, each once; `old` is what packages or elements have put there."""
    text = _HEADER + _FIRST.get(name, "") if old is None else old
    text += "\n" if text and not text.endswith("\n") else ""
    present = set(text.splitlines())
    return text + "".join(f"{line}\n" for line in lines if line not in present)
