"""The order of a build: phases and, between them, dibble's own work on the target (contract.md 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY
from dibble.plan.manifest import scripts
from dibble.plan.step import PACKAGES, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.plan.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Engine:
    """A piece of the engine's own work. `only_if` names what must be pending for it to be done at all; with `only_set`
    it is done only where it has settings."""

    name: str
    only_if: str = ""
    only_set: bool = False


SEQUENCE: tuple[str | Engine, ...] = (
    "root.d",
    Engine("resolv-conf"),
    "extra-data.d",
    "pre-install.d",
    "install.d",
    Engine(PACKAGES, only_if="packages"),
    Engine("volumes", only_set=True),
    Engine("initramfs", only_if="initramfs"),
    "post-install.d",
    Engine("initramfs-again", only_if="initramfs"),
    "post-root.d",
    "block-device.d",
    Engine("fstab"),
    "pre-finalise.d",
    "finalise.d",
    "cleanup.d",
    Engine("finish"),
)


def steps_of(
    item: str | Engine, manifest: Manifest, pending: Sequence[str], settings: Mapping[str, Mapping[str, str]]
) -> list[Step]:
    """The steps of one item of SEQUENCE, with the hooks tree as it is then.

    `settings` holds, by the name of the engine's work, what it depends on; `pending` what is waiting to be done.
    """
    if isinstance(item, Engine):
        if item.only_if and item.only_if not in pending:
            return []
        if item.only_set and not settings.get(item.name):
            return []
        return [Step(f"engine/{item.name}", item.name, "engine", settings=dict(settings.get(item.name, {})))]
    where = BY_DIRECTORY[item].where
    return [Step(f"{item}/{name}", item, where, script=name) for name in scripts(manifest, item)]
