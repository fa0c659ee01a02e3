"""Secrets that a disk is encrypted with. They are in memory only: never in an image, a layer, a log or a key."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """The content of a file that the user gave under a name.

    `mark` stands for it in keys: it differs for another content, and tells nothing of it to who lacks the store's own
    key (`dibble.run.secrets`).
    """

    name: str
    mark: str
    content: bytes = field(repr=False, compare=False)
