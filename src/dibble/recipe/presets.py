"""Presets: what an image for an environment (OpenStack, VMware, a container …) is usually made of, as data files.

A preset is a recipe that counts less than anything the user says, with four keys of its own: `summary`, `layout`,
`machine` and `gate` (docs/environments.md). It is found by name: in the directories of DIBBLE_ENVIRONMENTS_PATH, among
those that dibble ships, or through an entry point of the group `dibble.environments` whose value is the file's path.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble import registry
from dibble.errors import UsageError
from dibble.recipe.merge import Asked  # noqa: TC001 - dataclass field type
from dibble.recipe.model import Gate, Machine, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED = Path(__file__).resolve().parent.parent / "catalogue" / "environments"
PATH_VARIABLE = "DIBBLE_ENVIRONMENTS_PATH"
_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Preset:
    """What the file says: `asked` in the terms of a recipe, `layout` as in Request, and what the image is for."""

    asked: Asked
    layout: str
    target: Target


def read_preset(name: str, environ: Mapping[str, str], cwd: Path) -> Preset:
    """The preset of this name. Raises UsageError for an unknown name, RecipeError for what is wrong in its file."""
    from dibble.recipe.read import read_as

    path = _find(name, environ, cwd)
    asked, own = read_as(path, str(path), preset=True)
    machine, gate = own["machine"], own["gate"]
    target = Target(
        name=name,
        summary=own["summary"],
        source=str(path),
        machine=Machine(machine.disk_bus, machine.network, machine.metadata, machine.minimum_memory),
        gate=Gate(gate.present, gate.absent),
    )
    return Preset(asked, own["layout"], target)


def preset_names(environ: Mapping[str, str], cwd: Path) -> list[str]:
    """All names that can be given, sorted."""
    found = {path.stem for folder in _folders(environ, cwd) for path in folder.glob(f"*{_SUFFIX}")}
    return sorted(found | _third_parties())


def _find(name: str, environ: Mapping[str, str], cwd: Path) -> Path:
    for folder in _folders(environ, cwd):
        path = folder / f"{name}{_SUFFIX}"
        if "/" not in name and path.is_file():
            return path
    if name in _third_parties():
        value: Any = registry.load("environments", name)  # what the other package's attribute holds
        return Path(value)
    raise registry.unknown("environment", name, preset_names(environ, cwd))


def _folders(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """Where files are looked for, the user's own directories first. Raises UsageError for one that is not there."""
    folders = []
    for entry in filter(None, environ.get(PATH_VARIABLE, "").split(os.pathsep)):
        folder = cwd / entry
        if not folder.is_dir():
            raise UsageError(
                f'the entry "{entry}" of {PATH_VARIABLE} is not a directory', hint="take it out, or mend it"
            )
        folders.append(folder)
    return [*folders, SHIPPED]


def _third_parties() -> set[str]:
    """Names of entry points. Raises UsageError for one that a file of dibble's own has already."""
    names = set(registry.names("environments"))
    for name in sorted(names):
        if (SHIPPED / f"{name}{_SUFFIX}").is_file():
            raise UsageError(
                f'an installed package declares the environment "{name}", which is built in',
                hint="uninstall it, or ask its author for another name",
            )
    return names
