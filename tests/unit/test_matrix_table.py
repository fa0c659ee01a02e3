"""The table of a run in a terminal and on a pipe."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from rich.cells import cell_len
from tests.unit.matrix_runs import CAUSES, HOSTS, TARGETS, large_run, result, run_of, runs

from dibble.fleet.model import FailureClass, MatrixRun, Outcome
from dibble.fleet.reports.table import table_for, table_text

pytestmark = pytest.mark.unit

MID_SYNC, REASON, _ = CAUSES[0]


def test_targets_go_down_and_hosts_across_with_a_number_for_each_reason() -> None:
    run = run_of(
        result("debian-12", "fedora-44"),
        result("fedora-44", "fedora-44", Outcome.FAILED, MID_SYNC, REASON),
        result("debian-12", "tox", Outcome.FAILED),
        result("fedora-44", "tox", Outcome.SKIPPED, reason="fedora-44/hostgen is needed, which failed"),
        result("fedora-44", "gentoo", Outcome.FAILED, MID_SYNC, REASON),
    )
    assert table_text(run) == (
        "+---------+---------+---------+\n"
        "|         |debian-12|fedora-44|\n"
        "+---------+---------+---------+\n"
        "|fedora-44|success  |-   1 -  |\n"
        "+---------+---------+---------+\n"
        "|tox      |failed   |-   2 -  |\n"
        "+---------+---------+---------+\n"
        "|gentoo   |.        |-   1 -  |\n"
        "+---------+---------+---------+\n"
        "-   1 - mirror mid-sync: the mirror of Fedora 44 lists packages that it does not have yet\n"
        "-   2 - skipped: fedora-44/hostgen is needed, which failed\n"
        "5 cells: 1 success, 3 failed, 1 skipped; took 1 h 00 min\n"
    )


def test_equal_reasons_of_different_classes_have_notes_of_their_own() -> None:
    run = run_of(
        result(target="a", outcome=Outcome.FAILED, failure=FailureClass.TIMEOUT, reason="same"),
        result(target="b", outcome=Outcome.FAILED, failure=FailureClass.NETWORK, reason="same"),
    )
    assert "-   1 - timeout: same\n-   2 - network: same\n" in table_text(run)


def test_what_passed_on_a_retry_and_what_may_fail_is_marked() -> None:
    failed = result(target="a", outcome=Outcome.FAILED, failure=MID_SYNC, reason=REASON, allow_failure=True)
    flaky = result(target="b", earlier=failed.attempts)
    text = table_text(run_of(failed, flaky))
    assert "|(-   1 -)|" in text
    assert "|success* |" in text
    assert "success* passed on a retry\n(…) allowed to fail\n2 cells: 1 success, 1 failed; 1 passed on a retry" in text


def test_cells_at_one_place_stand_beside_each_other() -> None:
    run = run_of(result(), result(outcome=Outcome.RUNNING))
    assert "|success/running|" in table_text(run)


@pytest.mark.parametrize("width", [40, 80, 132, 400])
def test_in_a_terminal_no_line_is_wider_than_it_and_every_host_is_there(width: int) -> None:
    text = table_for(large_run(3), width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    for name in (*HOSTS, *TARGETS):
        assert name in text
    assert text.count("success") >= text.count("failed") + 150


def test_nothing_in_a_name_or_reason_steers_the_terminal() -> None:
    run = run_of(result("[bold]host\x1b[2J", "tar\nget", Outcome.FAILED, MID_SYNC, "re\x07ason\x1b]0;title\x07 [red]x"))
    for text in (table_text(run), table_for(run, 100)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[bold]host" in text
        assert "tar get" in text
        assert "re␇ason [red]x" in text


@given(runs())
@settings(max_examples=15)
def test_any_run_has_a_table(run: MatrixRun) -> None:
    assert table_text(run).endswith("\n")
    assert table_for(run, 60)
