"""Values that the tests of outputs need: a request, a disk, and events that are remembered."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dibble.disk.model import Disk, Graph, Layout
from dibble.events import Events
from dibble.recipe.load import request_of
from dibble.recipe.merge import Host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.events import Event
    from dibble.recipe.model import Request

EPOCH = 1_700_000_000


def request(cwd: Path, **changes: Any) -> Request:
    """A request for `N` in `cwd`."""
    host = Host(machine="x86_64", home=cwd, cwd=cwd, catalogue=cwd)
    return dataclasses.replace(request_of(("debian",), {}, {}, host=host), **{"name": "N", **changes})


def disk(images: Mapping[str, Path]) -> Disk:
    empty = Graph((), (), (), (), ())
    return Disk(images, Layout(empty, {}, {}, UUID(int=0)))


class Remembered(Events):
    """Events of which each one sent is kept."""

    def __init__(self) -> None:
        super().__init__([self])
        self.sent: list[Event] = []

    def handle(self, event: Event) -> None:
        self.sent.append(event)

    def close(self) -> None:
        """Nothing to close: the list stays."""
