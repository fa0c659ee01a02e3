"""`dibble report`: results shown again, reports written, the history listed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit.matrix_runs import large_run, result, run_of

from dibble.cli.main import main
from dibble.fleet.history import History
from dibble.fleet.model import Outcome
from dibble.fleet.reports.as_json import read_run
from dibble.fleet.reports.table import table_text
from dibble.fleet.reports.write import write_reports

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setenv("DIBBLE_HISTORY", str(tmp_path / "history.sqlite"))
    return History(tmp_path / "history.sqlite")


@pytest.fixture
def directory(tmp_path: Path, history: History) -> Path:
    write_reports(large_run(4), tmp_path / "run", None)
    return tmp_path / "run"


def test_the_table_is_printed_from_a_directory_and_from_a_file(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(directory)]) == 0
    assert main(["report", str(directory / "results.json")]) == 0
    assert capsys.readouterr().out == table_text(large_run(4)) * 2


def test_reports_are_written_where_asked(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "page.html", tmp_path / "junit.xml"]
    assert main(["report", str(directory), "--html", str(files[0]), "--junit", str(files[1]), "--json"]) == 0
    assert capsys.readouterr().out == (directory / "results.json").read_text()
    assert files[0].read_text() == (directory / "report.html").read_text()
    assert files[1].read_text() == (directory / "junit.xml").read_text()


def test_the_history_lists_what_was_recorded_and_shows_it_by_id(
    directory: Path, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    history.record(run_of(result(), matrix="weekly", id="weekly-1", ended=None))
    assert main(["report", str(directory), "--record"]) == 0
    assert history.load(large_run(4).id) == large_run(4)
    capsys.readouterr()
    assert main(["report", "--history"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "MATRIX", "BEGAN", "TOOK", "IMAGES", "CELLS"]
    assert [line.split()[1] for line in lines] == ["nightly", "weekly"]
    assert "interrupted" in lines[1]
    assert main(["report", "--history", "weekly", "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["weekly-1"]
    assert main(["report", "weekly-1"]) == 0
    assert "1 cell: 1 success; interrupted" in capsys.readouterr().out
    assert main(["report", "--history", "monthly"]) == 0
    assert "no runs of monthly" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "allowed", "ended", "status"),
    [
        (Outcome.SUCCESS, False, 1.0, 0),
        (Outcome.UNSUPPORTED, False, 1.0, 0),
        (Outcome.FAILED, False, 1.0, 1),
        (Outcome.FAILED, True, 1.0, 0),
        (Outcome.SKIPPED, False, 1.0, 1),
        (Outcome.SUCCESS, False, None, 1),
    ],
)
def test_with_check_the_status_tells_whether_all_is_well(
    tmp_path: Path, history: History, outcome: Outcome, allowed: bool, ended: float | None, status: int
) -> None:
    run = replace(run_of(result(outcome=outcome, allow_failure=allowed)), ended=ended)
    write_reports(run, tmp_path, None)
    assert read_run(tmp_path) == run
    assert main(["report", str(tmp_path), "--check"]) == status
    assert main(["report", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "no results are named"),
        (["nowhere"], 2, "nowhere: no such file"),
        (["."], 2, "results.json: no results of a matrix"),
        (["--history", "--record"], 2, "--history lists runs and does nothing else"),
        (["RUN", "--last", "3"], 2, "--last says how many runs --history lists"),
        (["RUN", "--html", "/proc/none/x"], 1, "/proc/none/x cannot be written"),
        (["RUN", "--history-file", "/proc/none/x", "--record"], 1, "the history /proc/none/x cannot be used"),
    ],
)
def test_what_is_wrong_is_one_error(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(directory.parent)
    assert main(["report", *(str(directory) if word == "RUN" else word for word in arguments)]) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert "hint:" in told.err
