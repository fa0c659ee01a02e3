"""Which cell is started next, and when a cell may be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.matrix_cells import work

from dibble.fleet.choose import SharedLayers
from dibble.fleet.waiting import Waiting

if TYPE_CHECKING:
    from dibble.fleet.cells import Work

pytestmark = pytest.mark.unit

DEBIAN, DEBIAN_TOO, FEDORA = work("a", base="d"), work("b", base="d"), work("c", base="f")


def order_of(*works: Work) -> SharedLayers:
    order = SharedLayers()
    for place, one in enumerate(works):
        order.add(one, place)
    return order


def anything(_: Work) -> bool:
    return True


def names(order: SharedLayers) -> str:
    """Of all that are left, each taken while those before it run."""
    taken = ""
    while (found := order.take(anything)) is not None:
        taken += found.cell.name
    return taken


def test_of_cells_with_one_base_one_makes_it_while_others_are_built() -> None:
    assert names(order_of(DEBIAN, DEBIAN_TOO, FEDORA)) == "acb"
    assert names(order_of(DEBIAN, DEBIAN_TOO)) == "ab", "better than an idle core"


def test_a_base_that_nobody_has_made_comes_before_cells_whose_base_is_there() -> None:
    order = order_of(DEBIAN, DEBIAN_TOO)
    assert order.take(anything) is DEBIAN
    order.ended(DEBIAN, made=True)
    order.add(FEDORA, 2)
    assert names(order) == "cb"


def test_a_base_that_was_lost_with_its_worker_is_made_anew_by_one_cell() -> None:
    order = order_of(DEBIAN, DEBIAN_TOO, FEDORA)
    assert order.take(anything) is DEBIAN
    order.ended(DEBIAN, made=False)
    assert names(order) == "bc"


def test_a_cell_that_shares_all_layers_with_a_running_one_comes_last() -> None:
    first, same, near = (work(name, base="d", tree=tree) for name, tree in (("a", "t"), ("b", "t"), ("c", "u")))
    assert names(order_of(first, same, near)) == "acb"


def test_a_cell_whose_layers_are_there_waits_for_none_that_runs() -> None:
    first, same, third = (work(name, base="d", tree="t") for name in "abc")
    order = order_of(first)
    assert order.take(anything) is first
    order.ended(first, made=True)
    order.add(same, 1)
    assert order.take(anything) is same
    order.add(third, 2)
    order.add(work("d", base="e"), 3)
    assert names(order) == "dc"
    order.ended(same, made=True)


def test_a_cell_without_shared_layers_waits_for_nobody() -> None:
    assert names(order_of(work("a"), work("b"))) == "ab"


def test_of_cells_that_the_pool_does_not_take_none_stands_in_the_way() -> None:
    arm = [replace(work(name, base=name), recipe={"arch": "arm64"}) for name in "ab"]
    asked: list[str] = []

    def takes(one: Work) -> bool:
        asked.append(one.cell.name)
        return "arch" not in one.recipe

    order = order_of(*arm, FEDORA)
    assert order.take(takes) is FEDORA
    assert order.take(takes) is None
    assert asked == ["a", "c", "a"], "not of each cell"
    assert order.take(anything) is arm[0]


CELLS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12)


@given(CELLS, st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=40))
def test_the_next_cell_is_always_one_of_the_least_rank_and_the_first_of_those(
    kinds: list[tuple[int, int]], moves: list[tuple[int, bool]]
) -> None:
    works = [work(f"{i}", base=f"b{base}", tree=f"b{base}t{tree}") for i, (base, tree) in enumerate(kinds)]
    places = {one.cell.name: place for place, one in enumerate(works)}
    order, waiting = order_of(*works), list(works)
    running: list[Work] = []
    made: set[str] = set()

    def rank(one: Work) -> int:
        bases, trees = ({cell.base for cell in running}, {cell.tree for cell in running})
        if one.tree in made:
            return 2
        if one.tree in trees:
            return 4
        return 1 if one.base in made else 3 if one.base in bases else 0

    for number, good in moves:
        if running and number % 2:
            one = running.pop(number % len(running))
            order.ended(one, made=good)
            if good:
                made |= {one.base, one.tree}
            else:
                order.add(one, places[one.cell.name])
                waiting.append(one)
            continue
        expected = min(waiting, key=lambda one: (rank(one), places[one.cell.name]), default=None)
        assert order.take(anything) is expected
        if expected is not None:
            waiting.remove(expected)
            running.append(expected)


def test_a_cell_may_be_started_when_the_last_that_it_needs_is_done() -> None:
    works = [work("a", needs=["b", "c", "z"]), work("b"), work("c", needs=["b"])]
    waiting = Waiting(works, {"z"}, SharedLayers())
    assert waiting.take(anything) is works[1]
    assert waiting.take(anything) is None
    waiting.done("b", success=True)
    assert waiting.take(anything) is works[2]
    waiting.again(works[2])
    assert waiting.take(anything) is works[2], "a second try"
    assert len(waiting) == 1
    waiting.done("c", success=True)
    assert waiting.take(anything) is works[0]
    assert not waiting


def test_a_cell_that_was_taken_out_is_not_started() -> None:
    waiting = Waiting([DEBIAN, DEBIAN_TOO], (), SharedLayers())
    waiting.remove("a")
    assert waiting.take(anything) is DEBIAN_TOO
    assert waiting.take(anything) is None
