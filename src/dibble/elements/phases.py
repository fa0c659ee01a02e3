"""The phases of a build: their order, where they run and what of the hook tree they see (contract.md 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Phase:
    """`directory` is the phase's place in the hook tree, `where` tells whether scripts are chrooted to the target.

    A phase sees all that is not a phase directory, and its own; `sees_all` adds the directories of the others. What a
    phase sees goes into the keys of its steps: whoever edits a cleanup script does not rebuild the packages.
    """

    directory: str
    where: Literal["outside", "inside"]
    sees_all: bool = False

    @property
    def name(self) -> str:
        """The name as in break points: `install` for `install.d`."""
        return self.directory.removesuffix(".d")


PHASES = (
    Phase("root.d", "outside"),
    # Its scripts rewrite the others' directories: install-types links scripts, elements drop files for later phases.
    Phase("extra-data.d", "outside", sees_all=True),
    Phase("pre-install.d", "inside"),
    Phase("install.d", "inside"),
    Phase("post-install.d", "inside"),
    Phase("post-root.d", "outside"),
    Phase("block-device.d", "outside"),
    Phase("pre-finalise.d", "outside"),
    Phase("finalise.d", "inside"),
    Phase("cleanup.d", "outside"),
)

READ_BY_NAME = frozenset(
    {"static", "init-scripts", "init.d", "binary-deps.d", "udev.d", "ramdisk-install.d", "dracut-drivers.d"}
)
"""Directories that two or three scripts read and name: what the image gets as it is (contract.md 8), and those of
ramdisks (2.6). Scripts that do not name one do not see it, like another phase's: so an edited file in `static`, or a
piece of a ramdisk's init, does not rebuild the packages. Directories of other names are seen by every script, since
nobody knows who reads them."""

BY_DIRECTORY = {phase.directory: phase for phase in PHASES}


def sees(phase: str, name: str) -> bool:
    """Whether the phase of directory `phase` sees `name`, a path relative to the hooks root."""
    top = name.split("/", 1)[0]
    return top == phase or top not in BY_DIRECTORY or BY_DIRECTORY[phase].sees_all
