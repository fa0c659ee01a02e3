"""Which packages of a finished system nobody asked for and nothing needs.

Dependencies are met in a finished system, so versions are left aside: a name, or what a package provides, is enough. Of
alternatives (`a | b`) each one that is there counts as needed, as for apt's autoremove (apt-get(8)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence, Set

Identity = tuple[str, str, str]
"""Name, version and architecture of a package: of some, a system has several versions."""

Why = Literal["base", "recommended", "left"]
"""Why a package is there: it came with the first packages of the system; another one that stays recommends it; or what
it came with is gone, or asked for it in a way that nobody can see."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A package of a system, with what it offers and wants.

    `provides` are further names that it answers to; `needs` and `recommends` are lists of alternatives. `essential`
    says that the system itself does not work without it.
    """

    name: str
    version: str
    arch: str
    provides: frozenset[str] = frozenset()
    needs: tuple[tuple[str, ...], ...] = ()
    recommends: tuple[tuple[str, ...], ...] = ()
    essential: bool = False

    @property
    def identity(self) -> Identity:
        return (self.name, self.version, self.arch)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The packages of a system.

    `automatic` are the names of those that, by the package manager's own marks, only came along. `files` are the paths
    of each package, absolute, directories and what is no longer there among them.
    """

    installed: Sequence[Installed]
    automatic: frozenset[str]
    files: Mapping[Identity, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A package that could go. `of` names those that recommend it, or, within such a group, need it."""

    package: Installed
    why: Why
    of: tuple[str, ...] = ()


def unneeded(installed: Sequence[Installed], asked: Set[str], base: Collection[str]) -> list[Unneeded]:
    """The packages that are neither essential, nor in `asked`, nor needed by one that is, in their order.

    What is asked for is a name or, where no package is called so, what a package provides.
    `base` are the names that the system began with. What is needed by a package that is only recommended shares its
    reason.
    """
    by_name: dict[str, list[int]] = {}
    for number, package in enumerate(installed):
        for name in {package.name, *package.provides}:
            by_name.setdefault(name, []).append(number)

    def behind(wishes: Iterable[Sequence[str]]) -> set[int]:
        return {number for names in wishes for name in names for number in by_name.get(name, ())}

    def closed(roots: Iterable[int]) -> set[int]:
        reached, waiting = set[int](), list(roots)
        while waiting:
            number = waiting.pop()
            if number not in reached:
                reached.add(number)
                waiting += behind(installed[number].needs) - reached
        return reached

    names = {package.name for package in installed}
    named = asked & names | {installed[number].name for number in behind([sorted(asked - names)])}
    kept = closed(n for n, package in enumerate(installed) if package.essential or package.name in named)
    wished: dict[int, set[int]] = {}  # by package that is recommended, directly or not: those that want it
    stay, new = set(kept), set(kept)
    while new:  # what a recommended package recommends is there for the same reason
        found: set[int] = set()
        for number in sorted(new):
            for one in behind(installed[number].recommends) - stay:
                wished.setdefault(one, set()).add(number)
                found.add(one)
        for root in sorted(found):
            for one in closed([root]) - stay - found:
                wished.setdefault(one, set()).add(root)
        new = closed(found) - stay
        stay |= new
    rows = []
    for number, package in enumerate(installed):
        if number in kept:
            continue
        of = tuple(sorted(installed[one].name for one in wished.get(number, ())))
        why: Why = "recommended" if of else "base" if package.name in base else "left"
        rows.append(Unneeded(package, why, of))
    return rows
