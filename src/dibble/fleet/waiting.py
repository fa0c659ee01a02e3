"""Cells that are not done: what each still needs, and which may be started."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from dibble.fleet.cells import Work
    from dibble.fleet.choose import Order


class Waiting:
    """Cells of a run that are neither running nor done. `todo` are in the order of the matrix, `done` have succeeded.

    What a cell needs is counted down as it is done, so that nothing looks at all cells for one that ended.
    """

    def __init__(self, todo: Sequence[Work], done: Collection[str], order: Order) -> None:
        self._cells = {work.cell.name: work for work in todo}
        self._places = {name: place for place, name in enumerate(self._cells)}
        self._missing = {name: set(work.cell.needs).difference(done) for name, work in self._cells.items()}
        self._needed_by: dict[str, list[str]] = {}
        for name, needs in self._missing.items():
            for need in needs:
                self._needed_by.setdefault(need, []).append(name)
        self._order = order
        self._hopeless: deque[tuple[str, str]] = deque()
        for name in self._cells:
            self._offer(name)

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Work]:
        """All of them, those that must wait too; they may be removed meanwhile."""
        return iter(tuple(self._cells.values()))

    def take(self, takes: Callable[[Work], bool]) -> Work | None:
        """The cell to start now, which waits no more; None when each has to wait for another, or for room."""
        while (work := self._order.take(takes)) is not None:
            if self._cells.pop(work.cell.name, None) is not None:
                return work
            self._order.ended(work, made=False)  # it was removed meanwhile
        return None

    def again(self, work: Work) -> None:
        """One that was taken is to be started once more."""
        self._cells[work.cell.name] = work
        self._offer(work.cell.name)

    def remove(self, name: str) -> None:
        """It is not to be started; nothing happens where it does not wait."""
        self._cells.pop(name, None)

    def done(self, name: str, *, success: bool) -> None:
        """A cell came to its end: others may be started, or never will be."""
        for other in self._needed_by.pop(name, ()):
            if success:
                self._missing[other].discard(name)
                self._offer(other)
            else:
                self._hopeless.append((other, name))

    def hopeless(self) -> Iterator[tuple[Work, str]]:
        """Cells that can never be started, each with one that it needs and that was not built.

        Whoever takes one says `done` of it, and then gets those that need it.
        """
        while self._hopeless:
            name, need = self._hopeless.popleft()
            if name in self._cells:
                yield self._cells[name], need

    def _offer(self, name: str) -> None:
        if name in self._cells and not self._missing[name]:
            self._order.add(self._cells[name], self._places[name])
