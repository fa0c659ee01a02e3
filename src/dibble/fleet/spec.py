"""What a matrix file says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.errors import Where
from dibble.recipe.kinds import scalar_text, words_of

if TYPE_CHECKING:
    from pathlib import Path

Data = Mapping[str, Any]  # keys of a recipe and their values, as YAML has them

LOCAL = "local"
HOST = "host"
MAX_CELLS = 500
"""A matrix that makes more cells than this is taken for a mistake, unless it says that it is none."""


@dataclass(frozen=True, slots=True)
class BootCheck:
    """How an image is booted. Times in seconds, memory in MiB."""

    timeout_s: int = 300
    memory_mib: int = 1024
    marker: str = ""
    login: str = ""
    password: str = ""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """How cells are run. None: not said here. `boot` False: not booted, whatever was said before."""

    timeout_s: int | None = None
    retries: int | None = None
    boot: BootCheck | bool | None = None
    allow_failure: bool | None = None

    def over(self, below: Policy) -> Policy:
        """This, and where it says nothing, `below`."""

        def chosen(own: Any, other: Any) -> Any:  # two values of one field
            return other if own is None else own

        return Policy(
            chosen(self.timeout_s, below.timeout_s),
            chosen(self.retries, below.retries),
            chosen(self.boot, below.boot),
            chosen(self.allow_failure, below.allow_failure),
        )


@dataclass(frozen=True, slots=True)
class HostTree:
    """The root tree in which cells are built: a path, or the settings of a recipe that makes it. Neither: `local`."""

    tree: Path | None = None
    build: Data | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an axis: what it adds to the recipe of its cells, and how they are run."""

    axis: str
    name: str
    data: Data = field(default_factory=dict)
    policy: Policy = Policy()
    host: HostTree = field(default_factory=HostTree)
    architectures: tuple[str, ...] = ()
    """Those that a distribution says it exists for; empty: it says nothing."""
    where: Where = field(default_factory=Where)


@dataclass(frozen=True, slots=True)
class Selection:
    """Cells by their values: for each axis named, the names that fit."""

    values: Mapping[str, tuple[str, ...]]
    where: Where

    def fits(self, axes: Mapping[str, str]) -> bool:
        return all(axes[axis] in names for axis, names in self.values.items())

    def __str__(self) -> str:
        return ", ".join(f"{axis} {' or '.join(names)}" for axis, names in self.values.items())


@dataclass(frozen=True, slots=True)
class Include:
    """Cells beside the product. An axis that is not in `values` stands for each of its values."""

    values: Mapping[str, Value]
    data: Data
    policy: Policy
    where: Where


@dataclass(frozen=True, slots=True)
class Need:
    """Cells that `cells` selects are built after those that have the values of `after` instead of their own."""

    cells: Selection
    after: Selection
    where: Where


@dataclass(frozen=True, slots=True)
class Spec:
    """A matrix file. `axes` are in its order, `folder` is where its relative paths count from."""

    name: str
    shown: str
    folder: Path
    axes: Mapping[str, tuple[Value, ...]]
    include: tuple[Include, ...] = ()
    exclude: tuple[Selection, ...] = ()
    needs: tuple[Need, ...] = ()
    allow_failure: tuple[Selection, ...] = ()
    policy: Policy = Policy()
    base: Data = field(default_factory=dict)
    """What every cell's recipe begins with."""
    max_cells: int = MAX_CELLS
    tests: Path | None = None


def merged(*parts: Data) -> dict[str, Any]:
    """Settings of a recipe, the later ones over the earlier; elements, packages and variables add up."""
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in ("elements", "packages"):
                words = value if isinstance(value, list) else words_of(scalar_text(value))
                found[key] = [*found.get(key, []), *words]
            elif key == "environment":
                found[key] = {**found.get(key, {}), **value}
            else:
                found[key] = value
    return found
