"""Orders to compare the real one with."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

from dibble.fleet.choose import Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dibble.fleet.cells import Work


class FirstIn:
    """As in the matrix, whoever else makes the same layers."""

    def __init__(self) -> None:
        self._heaps: dict[Kind, list[tuple[float, int, Work]]] = {}

    def place_of(self, place: int) -> float:
        return place

    def add(self, work: Work, place: int) -> None:
        heapq.heappush(self._heaps.setdefault(kind_of(work), []), (self.place_of(place), place, work))

    def take(self, takes: Callable[[Work], bool]) -> Work | None:
        for heap in sorted(filter(None, self._heaps.values()), key=lambda heap: heap[0][:2]):
            if takes(heap[0][2]):
                return heapq.heappop(heap)[2]
        return None

    def ended(self, work: Work, *, made: bool) -> None:
        pass


class Shuffled(FirstIn):
    """At random."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def place_of(self, place: int) -> float:
        return self._random.random()
