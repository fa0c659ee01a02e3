"""On which worker of a cluster a cell is built. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker says of itself."""

    version: str
    """dibble's."""
    python: str
    native: tuple[str, ...]
    """Architectures whose programs it runs itself, in Debian's names; its own first."""
    emulated: tuple[str, ...]
    """Those that it builds for by qemu-user."""
    kvm: bool
    cores: int
    memory: int
    """Bytes that were available to it when it was asked."""
    builds: int
    """How many it takes at a time: as many as it has threads, and memory for."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a cell wants of a worker."""

    arch: str
    boots: bool = False


def can(facts: Facts, need: Need) -> bool:
    """Whether such a worker can build the cell at all."""
    return need.arch in facts.native or need.arch in facts.emulated


def can_any(workers: Mapping[str, Facts], need: Need) -> bool:
    return any(can(facts, need) for facts in workers.values())


def chosen(
    workers: Mapping[str, Facts],
    busy: Mapping[str, int],
    need: Need,
    *,
    avoided: Collection[str] = (),
    warm: Collection[str] = (),
) -> str | None:
    """The address of the worker to build on now; None when the cell has to wait, or when no worker can.

    `busy` counts what runs on each, `avoided` are workers that it would rather not see again, `warm` those that have
    its first layers. Where there are workers of the cell's own architecture it waits for one of them: emulation takes
    several times as long. A boot goes to a worker with KVM when one is free, and what is not booted leaves those alone.
    Of the rest a warm one counts, then the one that has most room.
    """
    native = {address: facts for address, facts in workers.items() if need.arch in facts.native}
    fitting = native or {address: facts for address, facts in workers.items() if can(facts, need)}

    def rank(address: str) -> tuple[bool, bool, bool, float, str]:
        facts = workers[address]
        load = busy.get(address, 0) / facts.builds
        return address in avoided, facts.kvm is not need.boots, address not in warm, load, address

    free = [address for address, facts in fitting.items() if busy.get(address, 0) < facts.builds]
    return min(free, key=rank, default=None)


def room(workers: Mapping[str, Facts], busy: Mapping[str, int]) -> int:
    """How many builds more fit on all of them together."""
    return sum(max(0, facts.builds - busy.get(address, 0)) for address, facts in workers.items())


def unfit(facts: Facts, version: str) -> str:
    """Why a worker is not used by a client with this version; empty when it is."""
    if facts.version != version:
        return f"has dibble {facts.version}, and here is {version}"
    return ""
