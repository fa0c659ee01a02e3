"""Which cell is started next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from dibble.fleet.cells import Work


def next_of(ready: Iterable[Work], running: Collection[Work], begun: Collection[str]) -> Work | None:
    """The cell to start; of equals the first.

    Cells that begin with the same layers would wait for each other: the store makes each layer once, and whoever comes
    second waits with a slot taken. So a cell comes first whose base nobody makes at the moment, then one whose base is
    being made, last one that shares all layers with a cell that runs. `begun` are bases of which a cell has ended:
    their layers are in the store. Linear in the number of cells.
    """
    trees = {work.tree for work in running if work.tree}
    bases = {work.base for work in running if work.base}

    def waits(work: Work) -> int:
        if work.tree in trees:
            return 2
        return 1 if work.base in bases and work.base not in begun else 0

    best: Work | None = None
    least = 3
    for work in ready:
        rank = waits(work)
        if rank < least:
            best, least = work, rank
            if not rank:
                break
    return best
