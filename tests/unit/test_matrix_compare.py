"""What has changed since the previous run, and what is too little to tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from tests.unit.matrix_runs import result, run_of, runs

from dibble.fleet.compare import ChangeKind, changes_of
from dibble.fleet.model import CellResult, FailureClass, MatrixRun, Outcome

pytestmark = pytest.mark.unit

FAILED = result(outcome=Outcome.FAILED, failure=FailureClass.BOOT, reason="no login")


def told(now: CellResult, before: CellResult) -> list[tuple[str, str]]:
    return [(change.kind.value, change.text) for change in changes_of(run_of(now), run_of(before))]


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (FAILED, result(), [("newly failing", "success → failed (boot failure)")]),
        (result(outcome=Outcome.SKIPPED), result(), [("newly failing", "success → skipped")]),
        (result(), FAILED, [("mended", "failed (boot failure) → success")]),
        (FAILED, FAILED, []),
        (
            result(outcome=Outcome.FAILED, failure=FailureClass.TIMEOUT),
            FAILED,
            [("fails otherwise", "failed (boot failure) → failed (timeout)")],
        ),
        (result(seconds=200), result(seconds=100), [("slower", "1 min 40 s → 3 min 20 s (+100 %)")]),
        (result(seconds=50), result(seconds=100), [("faster", "1 min 40 s → 50.0 s (-50 %)")]),
        (result(seconds=110), result(seconds=100), []),
        (result(seconds=4), result(seconds=2), []),
        (result(size=400_000_000), result(), [("bigger", "300 MB → 400 MB (+33 %)")]),
        (result(size=200_000_000), result(), [("smaller", "300 MB → 200 MB (-33 %)")]),
        (result(size=301_000_000), result(), []),
        (result(outcome=Outcome.RUNNING), result(), []),
    ],
)
def test_a_change_is_told_with_before_and_after(
    now: CellResult, before: CellResult, expected: list[tuple[str, str]]
) -> None:
    assert told(now, before) == expected


def test_a_build_out_of_the_cache_is_not_called_faster() -> None:
    cold, warm = replace(result(seconds=300), steps_run=60), replace(result(seconds=10), steps_run=2)
    assert told(warm, cold) == []
    assert told(cold, warm) == []
    assert told(replace(result(seconds=10), resumed=True), result(seconds=300)) == []


def test_cells_that_come_and_go_are_told_last_and_the_gravest_first() -> None:
    now = run_of(result(target="new"), result(target="slow", seconds=500), replace(FAILED, cell=result().cell))
    before = run_of(result(target="gone"), result(target="slow"), result())
    assert [(change.kind, change.cell.partition("/")[2]) for change in changes_of(now, before)] == [
        (ChangeKind.FAILING, "fedora-44"),
        (ChangeKind.SLOWER, "slow"),
        (ChangeKind.NEW, "new"),
        (ChangeKind.GONE, "gone"),
    ]


@given(runs(), runs())
@settings(max_examples=20)
def test_any_two_runs_can_be_compared_and_none_differs_from_itself(one: MatrixRun, other: MatrixRun) -> None:
    changes_of(one, other)
    assert changes_of(one, one) == []
