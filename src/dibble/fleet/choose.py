"""Which cell is started next. Pure."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dibble.fleet.cells import Work

Kind = tuple[str, bool]


def kind_of(work: Work) -> Kind:
    """What decides which workers can build a cell: its architecture, and whether its image is booted."""
    return str(work.recipe.get("arch", "")), bool(work.policy.boot)


class Order(Protocol):
    """Cells that may be started, and which of them comes first. `place` is a cell's place in the matrix."""

    def add(self, work: Work, place: int) -> None:
        """It may be started."""

    def take(self, takes: Callable[[Work], bool]) -> Work | None:
        """The one to start now, which runs from here on; None when there is none that the pool takes.

        A pool answers alike for cells of one kind whose layers are as far.
        """

    def ended(self, work: Work, *, made: bool) -> None:
        """It runs no more. `made`: it came so far that its layers, or a failure that stays, are known."""


@dataclass(eq=False, slots=True)
class _Base:
    """What cells begin with: the first of them makes its layers."""

    running: int = 0
    made: bool = False
    lines: list[_Line] = field(default_factory=list)
    """Of all its trees."""


@dataclass(eq=False, slots=True)
class _Tree:
    """What cells share that differ only in what is made of their layers."""

    base: _Base
    running: int = 0
    made: bool = False
    lines: dict[Kind, _Line] = field(default_factory=dict)

    def rank(self) -> int:
        """How soon one of the cells should be started, the least first."""
        if self.made:
            return 2
        if self.running:
            return 4
        if self.base.made:
            return 1
        return 3 if self.base.running else 0


@dataclass(eq=False, slots=True)
class _Line:
    """Cells of one tree and kind that may be started: a heap by their places."""

    tree: _Tree
    kind: Kind
    cells: list[tuple[int, Work]] = field(default_factory=list)


class SharedLayers:
    """Cells that begin with the same layers would wait for each other, or make them twice.

    The store makes each layer once; whoever comes second waits with a slot taken, and on another machine it makes them
    again. So cells come in this order, equals as in the matrix: one whose base nobody has made or makes, since those
    take longest and others wait for them; one that needs layers over a base that is there; one of which all layers are
    there; one whose base is being made; one of which all layers are being made.

    Each call takes logarithmic time, but for the two moments in the life of a base when its state changes: then each
    of its trees is looked at.
    """

    def __init__(self) -> None:
        self._bases: dict[str, _Base] = {}
        self._trees: dict[str, _Tree] = {}
        self._heaps: dict[tuple[int, Kind], list[tuple[int, int, _Line]]] = {}
        """By rank and kind: (place of its first cell, number, line). Each line with cells has an entry that is true;
        others are passed over when they come up."""
        self._number = itertools.count()

    def add(self, work: Work, place: int) -> None:
        tree, kind = self._tree(work), kind_of(work)
        line = tree.lines.get(kind)
        if line is None:
            line = tree.lines[kind] = _Line(tree, kind)
            tree.base.lines.append(line)
        heapq.heappush(line.cells, (place, work))
        self._note(line)

    def take(self, takes: Callable[[Work], bool]) -> Work | None:
        for (rank, kind), heap in sorted(self._heaps.items(), key=lambda item: self._first(*item)):
            if heap and takes(heap[0][2].cells[0][1]):
                _, work = heapq.heappop(heapq.heappop(self._heaps[rank, kind])[2].cells)
                self._change(self._tree(work), +1, made=False)
                return work
        return None

    def ended(self, work: Work, *, made: bool) -> None:
        self._change(self._tree(work), -1, made=made)

    def _first(self, of: tuple[int, Kind], heap: list[tuple[int, int, _Line]]) -> tuple[int, int]:
        """(rank, place) of the first entry that is true; those before it are dropped."""
        while heap:
            place, _, line = heap[0]
            if line.cells and line.cells[0][0] == place and line.tree.rank() == of[0]:
                return of[0], place
            heapq.heappop(heap)
        return of[0], -1

    def _change(self, tree: _Tree, running: int, *, made: bool) -> None:
        base = tree.base
        before = (base.made, base.running > 0)
        for shared in (tree, base):
            shared.running += running
            shared.made = shared.made or made
        changed = (base.made, base.running > 0) != before and not before[0]
        for line in base.lines if changed else tree.lines.values():
            self._note(line)

    def _note(self, line: _Line) -> None:
        if line.cells:
            heap = self._heaps.setdefault((line.tree.rank(), line.kind), [])
            heapq.heappush(heap, (line.cells[0][0], next(self._number), line))

    def _tree(self, work: Work) -> _Tree:
        key = work.tree or work.cell.name  # without one it shares nothing
        if key not in self._trees:
            self._trees[key] = _Tree(self._bases.setdefault(work.base or work.cell.name, _Base()))
        return self._trees[key]
