"""Files in the image, besides fstab, by which the system and its initramfs find the devices of volumes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from dibble.disk.model import Graph
    from dibble.disk.volumes.base import Volume

_HEADER = "# Made with the image, from its block-device description.\n"
_EARLY = ("/", "/usr")  # what an initramfs mounts
_DRACUT = "/etc/dracut.conf.d/60-volumes.conf"
_PROGRAMS = ("usr/sbin", "sbin", "usr/bin", "bin")


@dataclass(frozen=True, slots=True)
class SystemFile:
    """`lines` for the file that distributions have under one of `paths`; a new one begins with `first`.

    It is for images that have `program`, or for all.
    """

    paths: tuple[str, ...]
    lines: tuple[str, ...]
    first: str = ""
    program: str = ""

    @property
    def name(self) -> str:
        return PurePosixPath(self.paths[-1]).name

    def path_in(self, root: Path) -> str:
        """Where the distribution in `root` has it: the first path whose directory is there, else the last."""
        there = (path for path in self.paths if (root / path.lstrip("/")).parent.is_dir())
        return next(there, self.paths[-1])

    def belongs_in(self, root: Path) -> bool:
        return not self.program or _has(root, self.program)

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
        return {program: element for program, element in self.programs.items() if not _has(root, program)}


def _has(root: Path, program: str) -> bool:
    return any((root / place / program).is_file() for place in _PROGRAMS)


def system_files(graph: Graph) -> SystemFiles:
    """What the volumes of a disk need in its system, in their order."""
    early = {
        device
        for mount in graph.mounts
        for filesystem in graph.filesystems
        if mount.point in _EARLY and mount.base == filesystem.name
        for device in graph.below(filesystem.base)
    }
    files: dict[tuple[str, ...], SystemFile] = {}
    programs: dict[str, str] = {}
    for volume in graph.volumes:
        if (system := volume.system) is None:
            continue
        programs[system.program] = system.element
        if system.files:
            file = files.get(system.files, SystemFile(system.files, (), system.first))
            line = (system.early_line if early & set(volume.devices) else "") or system.line
            files[system.files] = replace(file, lines=(*file.lines, line))
    dracut = _for_dracut(graph.volumes, early)
    return SystemFiles((*files.values(), *dracut), programs)


def _for_dracut(volumes: Iterable[Volume], early: AbstractSet[str]) -> tuple[SystemFile, ...]:
    """Its settings, by which every initramfs that it makes in the image finds the devices `early`; or none."""
    needed = [
        (volume, volume.system.dracut)
        for volume in volumes
        if early & set(volume.devices) and volume.system is not None and volume.system.dracut is not None
    ]
    if not needed:
        return ()
    modules = dict.fromkeys(dracut.module for _, dracut in needed)
    words = [word for _, dracut in needed for device, word in dracut.words if device in early]
    settings = dict.fromkeys(line for _, dracut in needed for line in dracut.settings)
    lines = [f'add_dracutmodules+=" {" ".join(modules)} "', *settings]
    if words:
        lines.append(f'kernel_cmdline+=" {" ".join(words)} "')
    return (SystemFile((_DRACUT,), tuple(lines), program="dracut"),)
