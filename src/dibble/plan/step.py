"""What a build consists of: steps, in one order, known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass, field
from typing import Literal

Where = Literal["outside", "inside", "engine"]
"""`outside`: in the tools view; `inside`: chrooted to the target; `engine`: dibble's own work on the target."""

PACKAGES = "packages"
"""The one piece of the engine's work that runs a command in the target, with environment.d."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that leaves a layer: a hook script, or a piece of work of the engine.

    `id` is unique in a build: `install.d/01-package-installs`, or `engine/initramfs`. All of it belongs to the key.
    """

    id: str
    phase: str
    where: Where
    script: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What an engine step depends on, by name."""


@dataclass(frozen=True, slots=True)
class Key:
    """A step's key and the parts it was made from (name → digest or short text), kept to explain a miss."""

    value: str
    parts: Mapping[str, str]
