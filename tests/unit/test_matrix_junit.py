"""JUnit XML of a run: what Jenkins' schema allows, and read back by a library as it was meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from junitparser import Error, Failure, Skipped
from junitparser.xunit2 import JUnitXml, TestCase
from tests.unit.matrix_runs import BEGAN, CAUSES, large_run, result, run_of, runs

from dibble.fleet.model import Attempt, FailureClass, MatrixRun, Outcome
from dibble.fleet.reports.junit import run_as_junit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

# Jenkins' junit-10.xsd in words: element → (elements in it, attributes that must be, attributes that may be).
_RESULT: tuple[set[str], set[str], set[str]] = (set(), set(), {"type", "message"})
_AGAIN = ({"stackTrace", "system-out", "system-err"}, {"type"}, {"message"})
_SUMS = {"time", "tests", "failures", "errors"}
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"testsuite"}, set(), {"name", *_SUMS}),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
    ),
    "testcase": (
        {"skipped", "error", "failure", "rerunFailure", "rerunError", "flakyFailure", "flakyError", "system-out"},
        {"name"},
        {"time", "classname", "group"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, set()),
    "skipped": _RESULT,
    "error": _RESULT,
    "failure": _RESULT,
    "rerunFailure": _AGAIN,
    "rerunError": _AGAIN,
    "flakyFailure": _AGAIN,
    "flakyError": _AGAIN,
    "stackTrace": (set(), set(), set()),
    "system-out": (set(), set(), set()),
}
TIME = re.compile(r"[0-9]+(\.[0-9]+)?")


def check_schema(element: ElementTree.Element) -> None:
    within, must, may = SCHEMA[element.tag]
    assert {child.tag for child in element} <= within
    assert must <= set(element.keys()) <= must | may, element.tag
    assert TIME.fullmatch(element.get("time", "0"))
    for child in element:
        check_schema(child)


def cases_of(run: MatrixRun, directory: Path) -> dict[str, TestCase]:
    report = JUnitXml.fromstring(run_as_junit(run, directory))
    cases = [(suite.name, case) for suite in report for case in suite]
    return {f"{host}/{case.name}": case for host, case in cases if isinstance(case, TestCase)}


@given(runs())
@settings(max_examples=25)
def test_any_run_fits_the_schema_with_each_cell_once(tmp_path_factory: pytest.TempPathFactory, run: MatrixRun) -> None:
    root = ElementTree.fromstring(run_as_junit(run, tmp_path_factory.getbasetemp()))
    check_schema(root)
    assert len(root.findall(".//testcase")) == len(run.results)


def test_hosts_are_suites_and_targets_cases_with_sums_that_agree(tmp_path: Path) -> None:
    run = large_run(4, directory=tmp_path)
    report = JUnitXml.fromstring(run_as_junit(run, tmp_path))
    assert [suite.name for suite in report] == list(run.hosts)
    failed = [one for one in run.results if one.outcome is Outcome.FAILED and not one.cell.allow_failure]
    assert report.tests == len(run.results)
    assert report.failures + report.errors == len(failed) > 0
    assert report.time == pytest.approx(sum(one.seconds for one in run.results), abs=1)


def test_the_class_is_the_type_and_tells_failures_from_errors(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\x1b[31mcaf\xe9\x1b[0m\n\x00")
    script = result(target="a", outcome=Outcome.FAILED, failure=FailureClass.SCRIPT, reason="it broke", log="log")
    network = result(target="b", outcome=Outcome.FAILED, failure=FailureClass.NETWORK, reason="no route")
    cases = cases_of(run_of(script, network), tmp_path)
    (failure,) = cases["debian-12/a"].result
    assert isinstance(failure, Failure)
    assert (failure.type, failure.message) == ("script error", "it broke")
    assert "exit status 1" in failure.text
    assert cases["debian-12/a"].system_out == "caf\\xe9\n␀"
    (error,) = cases["debian-12/b"].result
    assert isinstance(error, Error)
    assert error.type == "network"


def test_what_did_not_run_or_may_fail_is_skipped(tmp_path: Path) -> None:
    allowed = result(target="a", outcome=Outcome.FAILED, failure=CAUSES[0][0], reason="late", allow_failure=True)
    skipped = result(target="b", outcome=Outcome.SKIPPED, reason="debian-12/hostgen is needed")
    waiting = result(target="c", outcome=Outcome.WAITING)
    cases = cases_of(run_of(allowed, skipped, waiting, result(target="d")), tmp_path)
    told = []
    for name in "abc":
        (one,) = cases[f"debian-12/{name}"].result
        assert isinstance(one, Skipped)
        told.append((one.type, one.message))
    assert told == [
        ("mirror mid-sync", "failed, which is allowed: late"),
        ("skipped", "debian-12/hostgen is needed"),
        ("waiting", "waiting"),
    ]
    assert cases["debian-12/d"].is_passed


def test_tries_before_the_last_are_told_as_surefire_does(tmp_path: Path) -> None:
    tries = (
        Attempt("local", BEGAN, 5, Outcome.FAILED, FailureClass.NETWORK, "no route"),
        Attempt("local", BEGAN, 5, Outcome.FAILED, FailureClass.BOOT, "no login", hint="look at its console"),
    )
    flaky = result(target="a", earlier=tries)
    failed = result(target="b", outcome=Outcome.FAILED, failure=FailureClass.BOOT, reason="no login", earlier=tries)
    cases = cases_of(run_of(flaky, failed), tmp_path)
    assert cases["debian-12/a"].is_passed
    assert [one.type for one in cases["debian-12/a"].flaky_errors()] == ["network"]
    (again,) = cases["debian-12/a"].flaky_failures()
    assert (again.type, again.message) == ("boot failure", "no login")
    assert "hint: look at its console" in again.stack_trace
    assert not cases["debian-12/a"].is_rerun
    assert (len(cases["debian-12/b"].rerun_errors()), len(cases["debian-12/b"].rerun_failures())) == (1, 1)


def test_dots_in_names_do_not_become_packages(tmp_path: Path) -> None:
    case = cases_of(run_of(result("ubuntu-24.04"), matrix="my.matrix"), tmp_path)["ubuntu-24.04/fedora-44"]
    assert case.classname == "my_matrix.ubuntu-24_04"
