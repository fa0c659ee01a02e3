"""What a cell needs: found from the file's rules, checked, without loops."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from dibble.errors import RecipeError, Where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.fleet.model import Cell
    from dibble.fleet.spec import Need, Spec


def needs_of(spec: Spec, cells: Sequence[Cell]) -> dict[str, list[str]]:
    """By name of a cell, the names of those that the rules want before it.

    A rule leads from a cell to those that have the values of `after`, and else its own. Raises RecipeError for a rule
    that fits no cell, or leads to one that there is not. Linear in the number of cells, for each rule.
    """
    found: dict[str, list[str]] = {cell.name: [] for cell in cells}
    targets = [cell for cell in cells if cell.axes.keys() >= spec.axes.keys()]
    for need in spec.needs:
        fitting = [cell for cell in targets if need.cells.fits(cell.axes)]
        if not fitting:
            raise RecipeError(f"there is no cell with {need.cells} that could need another", where=need.where)
        after: dict[frozenset[tuple[str, str]], list[str]] = {}
        for other in targets:
            if need.after.fits(other.axes):
                after.setdefault(_others(other, need), []).append(other.name)
        for cell in fitting:
            wanted = after.get(_others(cell, need), ())
            if not wanted:
                raise RecipeError(
                    f"the cell {cell.name} needs one with {need.after}, and there is none",
                    hint="is it excluded? then exclude what needs it as well",
                    where=need.where,
                )
            found[cell.name] += wanted
    return found


def _others(cell: Cell, need: Need) -> frozenset[tuple[str, str]]:
    """What a rule keeps of a cell: the values of the axes that `after` does not name."""
    return frozenset((axis, value) for axis, value in cell.axes.items() if axis not in need.after.values)


def check_order(cells: Sequence[Cell], shown: str) -> None:
    """Raises RecipeError where cells need each other in a loop."""
    try:
        TopologicalSorter({cell.name: cell.needs for cell in cells}).prepare()
    except CycleError as error:
        loop = " needs ".join(reversed(error.args[1]))
        raise RecipeError(
            f"these cells wait for each other: {loop}", hint="take one of the needs out", where=Where(shown)
        ) from error
