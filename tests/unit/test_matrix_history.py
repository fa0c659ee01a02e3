"""The history of matrix runs: what is put in comes out, whoever else writes, and a file that is unfit is told."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from tests.unit.matrix_runs import BEGAN, large_run, result, run_of, runs

from dibble.errors import StoreError, UsageError
from dibble.fleet import history as module
from dibble.fleet.history import History
from dibble.fleet.model import FailureClass, MatrixRun, Outcome

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "state" / "history.sqlite")


@given(runs())
@settings(max_examples=20)
def test_any_run_is_loaded_as_it_was_recorded(tmp_path_factory: pytest.TempPathFactory, run: MatrixRun) -> None:
    history = History(tmp_path_factory.getbasetemp() / "any.sqlite")
    history.record(run)
    assert history.load(run.id) == run


def test_a_history_that_is_not_there_is_empty_and_not_made_by_looking(history: History) -> None:
    assert history.runs() == []
    assert history.previous(large_run()) is None
    assert history.trends("nightly") == {}
    assert not history.path.exists()


def test_runs_are_listed_newest_first_and_by_matrix(history: History) -> None:
    for number in (2, 1, 3):
        history.record(large_run(number, hosts=("debian-12",)))
    other = run_of(result(), id="other", matrix="weekly", ended=None)
    history.record(other)
    assert [run.began for run in history.runs("nightly")] == [BEGAN + 86_400 * number for number in (3, 2, 1)]
    assert {run.id for run in history.runs()} >= {"other"}
    assert len(history.runs("nightly", last=2)) == 2
    (listed,) = history.runs("weekly")
    assert (listed.ended, listed.outcomes, listed.seconds, listed.size) == (None, {Outcome.SUCCESS: 1}, 60, 300_000_000)


def test_a_resumed_run_replaces_what_was_recorded_of_it(history: History) -> None:
    waiting = run_of(result(outcome=Outcome.WAITING), result(target="debian-13"), ended=None)
    history.record(waiting)
    whole = replace(waiting, results=(result(),), ended=BEGAN + 5)
    history.record(whole)
    assert history.load(whole.id) == whole
    assert len(history.trends("nightly")) == 1


def test_the_previous_run_is_the_last_whole_one_of_the_same_matrix(history: History) -> None:
    runs = [large_run(number, hosts=("debian-12",)) for number in range(1, 5)]
    for run in (runs[0], replace(runs[1], matrix="weekly"), replace(runs[2], ended=None), runs[3]):
        history.record(run)
    assert history.previous(runs[3]) == runs[0]
    assert history.previous(runs[0]) is None


def test_a_cell_is_followed_through_the_runs(history: History) -> None:
    history.record(run_of(result(seconds=10, size=100), id="1", began=1))
    history.record(run_of(result(outcome=Outcome.FAILED, failure=FailureClass.BOOT, seconds=20), id="2", began=2))
    history.record(run_of(result(seconds=30, size=300), id="3", began=3))
    points = history.trends("nightly")["debian-12/fedora-44"]
    assert [(point.run, point.seconds, point.size) for point in points] == [
        ("1", 10, 100),
        ("2", 20, 0),
        ("3", 30, 300),
    ]
    assert [point.failure for point in points] == [None, FailureClass.BOOT, None]
    assert [point.run for point in history.trends("nightly", last=2)["debian-12/fedora-44"]] == ["2", "3"]
    assert [point.run for point in history.trends("nightly", until=2)["debian-12/fedora-44"]] == ["1", "2"]


def test_a_run_that_is_not_there_is_told(history: History) -> None:
    with pytest.raises(UsageError, match='no run "nowhere"'):
        history.load("nowhere")


def _write(path: Path, writer: int) -> None:
    for number in range(5):
        run = large_run(number, hosts=("debian-12",))
        History(path).record(replace(run, id=f"{writer}-{number}"))


def test_many_processes_write_at_once_from_the_very_first(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 4
    assert len(History(path).runs("nightly")) == 20
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]


def test_a_writer_that_dies_leaves_the_run_before(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    history.record(run_of(result()))
    monkeypatch.setattr(module, "result_document", lambda _result: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        history.record(run_of(result(seconds=1)))
    assert history.load(run_of().id) == run_of(result())


def test_a_history_of_an_older_dibble_is_brought_forward(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    run = large_run(1, hosts=("debian-12",))
    history.record(run)
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, ("ALTER TABLE run ADD COLUMN remark TEXT",)))
    assert history.load(run.id) == run
    with closing(sqlite3.connect(history.path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT remark FROM run").fetchone() == (None,)


def test_a_history_of_a_newer_dibble_is_refused(history: History) -> None:
    history.record(large_run(hosts=("debian-12",)))
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer dibble") as caught:
        history.runs()
    assert "update dibble" in caught.value.hint


def test_a_damaged_history_is_one_error_with_the_mend(history: History) -> None:
    history.record(large_run())
    data = bytearray(history.path.read_bytes())
    data[4096 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 4096)
    history.path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged") as caught:
        history.load(history.runs()[0].id)
    assert "--record" in caught.value.hint


def test_a_damaged_result_is_one_error(history: History) -> None:
    run = run_of(result())
    history.record(run)
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute("UPDATE cell SET result = '{', outcome = 'odd'")
        connection.commit()
    with pytest.raises(StoreError, match="is damaged"):
        history.load(run.id)
    with pytest.raises(StoreError, match="is damaged"):
        history.trends("nightly")


@pytest.mark.parametrize("content", [b"no database at all " * 50, b"", b"SQLite format 3\x00"])
def test_another_file_is_refused_and_not_touched(history: History, content: bytes) -> None:
    history.path.parent.mkdir()
    history.path.write_bytes(content)
    with pytest.raises(StoreError):
        history.record(run_of(result()))
    assert history.path.read_bytes() == content


def test_a_database_of_another_program_is_refused(history: History) -> None:
    history.path.parent.mkdir()
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute("CREATE TABLE run (id)")
    with pytest.raises(StoreError, match="no history of dibble"):
        history.record(run_of(result()))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        History(tmp_path / "file" / "history.sqlite").record(run_of(result()))
    with pytest.raises(StoreError, match="cannot be used"):
        History(tmp_path).runs()


def test_the_history_lies_where_the_user_says(tmp_path: Path) -> None:
    assert History.default_path({"DIBBLE_HISTORY": str(tmp_path / "x")}) == tmp_path / "x"
    assert History.default_path({}).name == "matrix-history.sqlite"
