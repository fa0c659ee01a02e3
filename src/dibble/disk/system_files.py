"""Files in the image, besides fstab, by which the system and its initramfs find the devices of volumes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.disk.model import Graph

_HEADER = "# Made with the image, from its block-device description.\n"
_EARLY = ("/", "/usr")  # what an initramfs mounts
_PROGRAMS = ("usr/sbin", "sbin", "usr/bin", "bin")


@dataclass(frozen=True, slots=True)
class SystemFile:
    """`lines` for the file that distributions have under one of `paths`; a new one begins with `first`."""

    paths: tuple[str, ...]
    lines: tuple[str, ...]
    first: str = ""

    @property
    def name(self) -> str:
        return PurePosixPath(self.paths[-1]).name

    def path_in(self, root: Path) -> str:
        """Where the distribution in `root` has it: the first path whose directory is there, else the last."""
        there = (path for path in self.paths if (root / path.lstrip("/")).parent.is_dir())
        return next(there, self.paths[-1])

    def text(self, old: str | None) -> str:
        """All of it, with our lines at the end, each once; `old` is what packages or elements have put there."""
        text = _HEADER + self.first if old is None else old
        text += "\n" if text and not text.endswith("\n") else ""
        present = set(text.splitlines())
        return text + "".join(f"{line}\n" for line in self.lines if line not in present)


@dataclass(frozen=True, slots=True)
class SystemFiles:
    """What to write, and `programs` that must be in the image, each with the element that brings it."""

    files: tuple[SystemFile, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        """All of it as texts, by file; nothing for a disk without volumes."""
        programs = {"programs": " ".join(self.programs)} if self.programs else {}
        return {**programs, **{file.name: "\n".join(file.lines) for file in self.files}}

    def missing_from(self, root: Path) -> dict[str, str]:
        """The programs that a tree lacks, and the elements that bring them."""
        return {
            program: element
            for program, element in self.programs.items()
            if not any((root / place / program).is_file() for place in _PROGRAMS)
        }


def system_files(graph: Graph) -> SystemFiles:
    """What the volumes of a disk need in its system, in their order."""
    early = {
        volume.name
        for mount in graph.mounts
        for filesystem in graph.filesystems
        if mount.point in _EARLY and mount.base == filesystem.name
        for volume in graph.volumes_below(filesystem.base)
    }
    files: dict[tuple[str, ...], SystemFile] = {}
    programs: dict[str, str] = {}
    for volume in graph.volumes:
        if (system := volume.system) is None:
            continue
        programs[system.program] = system.element
        if system.files:
            file = files.get(system.files, SystemFile(system.files, (), system.first))
            line = (system.early_line if volume.name in early else "") or system.line
            files[system.files] = replace(file, lines=(*file.lines, line))
    return SystemFiles(tuple(files.values()), programs)
