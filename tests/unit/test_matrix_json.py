"""results.json: whole, readable by others, and read back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.unit.matrix_runs import large_run, result, run_of, runs

from dibble.errors import UsageError
from dibble.fleet.model import MatrixRun, Outcome
from dibble.fleet.reports.as_json import read_run, run_as_json, run_from_json, schema

pytestmark = pytest.mark.unit


@given(runs())
@settings(max_examples=30)
def test_any_run_is_read_as_it_was_written(run: MatrixRun) -> None:
    assert run_from_json(run_as_json(run).encode(), Path("results.json")) == run


def test_what_follows_from_the_results_stands_beside_them() -> None:
    failed = result(outcome=Outcome.FAILED, reason="it broke")
    document = json.loads(run_as_json(run_of(failed, result(target="tox", earlier=failed.attempts))))
    assert document["format"] == 1
    assert document["summary"]["outcomes"] == {"success": 1, "failed": 1}
    assert document["summary"]["seconds_of_cells"] == 180
    assert [(cell["flaky"], cell["seconds"], cell["reason"]) for cell in document["results"]] == [
        (False, 60, "it broke"),
        (True, 120, ""),
    ]


def test_bytes_that_are_no_text_are_written_in_letters() -> None:
    run = run_of(result(outcome=Outcome.FAILED, reason="caf\udce9"))
    assert run_from_json(run_as_json(run), Path("x")).results[0].reason == "caf\\udce9"


def test_the_schema_describes_a_run() -> None:
    properties = schema()["properties"]
    assert set(json.loads(run_as_json(large_run()))) - {"format", "summary"} == set(properties)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", 'has no field "format"'),
        ('{"format": 2}', "format 2"),
        ('{"format": 1}', "does not fit: id: field required"),
        (
            run_as_json(run_of(result())).replace('"success"', '"great"'),
            "does not fit: results.0.outcome: input",
        ),
    ],
)
def test_what_is_no_result_is_one_error_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_run(tmp_path)
    assert str(tmp_path / "results.json") in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results of a matrix"):
        read_run(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        read_run(tmp_path / "other.json")
