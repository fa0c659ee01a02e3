"""From the words on the command line to the elements of the image: dependencies, virtual names, defaults, order.

The result depends on the words and on the elements alone, never on the order in which a directory is listed, on the
order of lines in `element-deps`, or on hash seeds (contract.md 3.2, 3.3; its defects D25 and D49 are mended here).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.elements.find import (
    Catalogue,
    ListedName,
    depends_of,
    find_elements,
    provides_of,
    unusable_because,
)
from dibble.elements.order import dependencies_first
from dibble.errors import ElementError, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dibble.elements.model import Element

OPERATING_SYSTEM = "operating-system"
BLOCK_DEVICE = "block-device"


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks for a name: an element's list, or where `listed` is None the command line, or a default (`implied`)."""

    element: str = ""
    listed: ListedName | None = None
    implied: bool = False

    def __str__(self) -> str:
        if self.listed:
            return f"{self.element} ({self.listed.file}:{self.listed.line})"
        return "default" if self.implied else "the command line"

    @property
    def where(self) -> Where:
        if self.listed is None:
            return Where()
        return Where(file=self.listed.file, line=self.listed.line, element=self.element)


@dataclass(frozen=True, slots=True)
class _Reached:
    """What the words lead to: `members` are elements, `missing` names without one, both with who asked first."""

    members: dict[str, _Asker]
    missing: dict[str, _Asker]
    providers: dict[str, list[str]]


def resolve(
    words: Sequence[str],
    search_path: Sequence[Path],
    *,
    ramdisk: bool = False,
    skip_base: bool = False,
    arch: str = "",
    environment: Mapping[str, str] | None = None,
) -> tuple[Element, ...]:
    """The elements of an image, each behind all that it depends on.

    Otherwise they stand as asked for: the ramdisk element (RAMDISK_ELEMENT in `environment`, else `ramdisk`), `base`,
    the words; in front of each what it needs and is not there yet, by name. Elements that depend on one another stand
    together. Raises ElementError, naming who asks, for an unknown name, for an element that is there in name only, for
    two providers of one virtual name, for a set without an operating system.
    """
    return resolve_in(
        find_elements(search_path),
        words,
        ramdisk=ramdisk,
        skip_base=skip_base,
        arch=arch,
        environment=environment,
    )


def resolve_in(
    catalogue: Catalogue,
    words: Sequence[str],
    *,
    ramdisk: bool = False,
    skip_base: bool = False,
    arch: str = "",
    environment: Mapping[str, str] | None = None,
    layout: str = "",
) -> tuple[Element, ...]:
    """As `resolve`, for a search path that has been read already.

    `layout` is the element that lays the disk of a `vm` out where no element provides that.
    """
    if not words:
        raise ElementError("no element is asked for", hint=_operating_system_hint(_Lists(catalogue)))
    asked: dict[str, _Asker] = {}
    if ramdisk:
        asked[(environment or {}).get("RAMDISK_ELEMENT") or "ramdisk"] = _Asker(implied=True)
    if not skip_base:
        asked["base"] = _Asker(implied=True)
    for word in words:
        asked[word] = _Asker()
    lists = _Lists(catalogue)
    reached, dropped = _settle(lists, asked)
    if "vm" in reached.members and BLOCK_DEVICE not in reached.providers:
        asked[layout or _default_block_device(arch)] = _Asker(implied=True)
        reached, dropped = _settle(lists, asked)
    _check(lists, asked, reached)
    return _ordered(lists, list(asked), reached, dropped)


def _default_block_device(arch: str) -> str:
    """The layout that `vm` gets when no element provides one: some boot by UEFI only, as Arm (contract.md 3.3)."""
    by_uefi = ("arm64", "aarch64", "riscv64")
    return "block-device-efi" if any(word in arch for word in by_uefi) else "block-device-mbr"


class _Lists:
    """The elements' lists, each file read once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._depends: dict[str, tuple[ListedName, ...]] = {}
        self._provides: dict[str, tuple[ListedName, ...]] = {}

    def depends(self, name: str) -> tuple[ListedName, ...]:
        if name not in self._depends:
            self._depends[name] = depends_of(self.catalogue.elements[name])
        return self._depends[name]

    def provides(self, name: str) -> tuple[ListedName, ...]:
        if name not in self._provides:
            self._provides[name] = provides_of(self.catalogue.elements[name])
        return self._provides[name]

    def who_could_provide(self, virtual: str) -> list[str]:
        """All elements of use on the search path that provide a name, sorted."""
        return [
            name
            for name, element in self.catalogue.elements.items()
            if any(p.name == virtual for p in self.provides(name)) and not unusable_because(element)
        ]


def _settle(lists: _Lists, asked: Mapping[str, _Asker]) -> tuple[_Reached, set[str]]:
    """Follow the dependencies until no element stands in the set whose name another one provides.

    Returns what is reached and the names dropped from it. A dropped element's dependencies are dropped too. Two knots
    are untied so that the result exists and is unique: an element whose provider left the set with another dropped
    element comes back; one that then meets its provider again, because it itself leads there, is dropped for good but
    its dependencies stay.
    """
    dropped: set[str] = set()
    back: set[str] = set()
    hollow: set[str] = set()
    while True:
        reached = _follow(lists, asked, dropped - hollow, hollow)
        provided = {
            name
            for name in reached.members
            if name not in dropped and any(provider != name for provider in reached.providers.get(name, ()))
        }
        lost = {name for name in dropped - hollow if name not in reached.providers}
        if provided:
            hollow |= provided & back
            dropped |= provided
        elif lost:
            back |= lost
            dropped -= lost
        else:
            return reached, dropped


def _follow(lists: _Lists, asked: Mapping[str, _Asker], without: set[str], hollow: set[str]) -> _Reached:
    """All that the words lead to, not going through `without`; the `hollow` lead on but provide nothing."""
    members: dict[str, _Asker] = {}
    missing: dict[str, _Asker] = {}
    providers: dict[str, list[str]] = {}
    queue = deque(asked.items())
    while queue:
        name, asker = queue.popleft()
        if name in members or name in without:
            continue
        if name not in lists.catalogue.elements:
            missing.setdefault(name, asker)
            continue
        members[name] = asker
        queue.extend((dependency.name, _Asker(name, dependency)) for dependency in lists.depends(name))
        if name not in hollow:
            for virtual in {provided.name for provided in lists.provides(name)}:
                providers.setdefault(virtual, []).append(name)
    return _Reached(members, missing, providers)


def _check(lists: _Lists, asked: Mapping[str, _Asker], reached: _Reached) -> None:
    for name, asker in reached.members.items():
        reason = unusable_because(lists.catalogue.elements[name])
        if reason:
            raise _unusable(name, reason, asker)
    for name, asker in reached.missing.items():
        if name not in reached.providers:
            raise _not_found(lists, name, asker)
    for virtual in sorted(reached.providers):
        providers = sorted(reached.providers[virtual])
        if len(providers) > 1:
            raise _two_providers(virtual, providers, reached)
        if virtual in asked and not asked[virtual].implied and providers != [virtual]:
            raise ElementError(
                f'"{virtual}" is asked for on the command line, but {providers[0]} provides it already',
                hint=f"leave {virtual} out, or leave out {providers[0]}, which is asked for by "
                f"{reached.members[providers[0]]}",
            )
    if OPERATING_SYSTEM not in reached.providers:
        raise ElementError(
            f"no element of {', '.join(asked)} provides an operating system", hint=_operating_system_hint(lists)
        )


def _operating_system_hint(lists: _Lists) -> str:
    systems = lists.who_could_provide(OPERATING_SYSTEM)
    return f"add one of {', '.join(systems)}" if systems else "put an operating system's element on ELEMENTS_PATH"


def _unusable(name: str, reason: str, asker: _Asker) -> ElementError:
    leave_out = f"{asker.element}, which needs it" if asker.element else name
    return ElementError(
        f"the element {name} cannot be used: {reason}", hint=f"leave out {leave_out}", where=asker.where
    )


def _not_found(lists: _Lists, name: str, asker: _Asker) -> ElementError:
    asked_by = asker.element or asker
    providers = lists.who_could_provide(name)
    if providers:
        return ElementError(
            f'nothing in the set provides "{name}", which {asked_by} asks for',
            hint=f"add {' or '.join(providers)}",
            where=asker.where,
        )
    near = get_close_matches(name, lists.catalogue.elements, n=3, cutoff=0.5)
    return ElementError(
        f'unknown element "{name}", asked for by {asked_by}',
        hint=f"did you mean {' or '.join(near)}?" if near else "put its directory on ELEMENTS_PATH",
        where=asker.where,
    )


def _two_providers(virtual: str, providers: Iterable[str], reached: _Reached) -> ElementError:
    asked_by = [f"{name} (asked for by {reached.members[name]})" for name in providers]
    return ElementError(f'"{virtual}" is provided by {" and by ".join(asked_by)}', hint="keep only one of them")


def _ordered(lists: _Lists, asked: Sequence[str], reached: _Reached, dropped: set[str]) -> tuple[Element, ...]:
    provider_of = {
        virtual: providers[0]
        for virtual, providers in reached.providers.items()
        if virtual not in reached.members or virtual in dropped
    }
    rank = {name: number for number, name in enumerate(asked)}

    def preference(name: str) -> tuple[int, str]:
        return rank.get(name, len(rank)), name

    members = sorted((name for name in reached.members if name not in dropped), key=preference)
    needs = {
        name: sorted(
            {provider_of.get(dependency.name, dependency.name) for dependency in lists.depends(name)} & set(members),
            key=preference,
        )
        for name in members
    }
    groups = dependencies_first(members, needs)
    return tuple(lists.catalogue.elements[name] for group in groups for name in sorted(group, key=preference))
