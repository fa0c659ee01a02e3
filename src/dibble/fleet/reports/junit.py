"""A run as JUnit XML, which Jenkins, GitLab and other CI systems show: a suite for each host, a case for each target.

The dialect is that of Jenkins' schema junit-10.xsd, into which Maven Surefire's reports fit: a cell that passed on a
retry has its failed tries as flakyFailure, one that failed each time has the earlier ones as rerunFailure.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from junitparser import Error, Failure, Skipped
from junitparser.xunit2 import (
    FlakyError,
    FlakyFailure,
    InterimResult,
    JUnitXml,
    RerunError,
    RerunFailure,
    TestCase,
    TestSuite,
)

from dibble.fleet.logs import log_end
from dibble.fleet.model import FailureClass, Outcome
from dibble.fleet.reports.plain import one_line, readable
from dibble.fleet.reports.words import by_place, kind_of, lines_and_columns

if TYPE_CHECKING:
    from pathlib import Path

    from junitparser.junitparser import FinalResult

    from dibble.fleet.model import Attempt, CellResult, MatrixRun

FILE_NAME = "junit.xml"
LOG_OF_A_FAILURE = 32_000
"""Bytes of log with each cell that failed. GitLab shows them; it refuses reports above some 30 MB."""
FAULTS_OF_THE_BUILD = frozenset(
    {
        FailureClass.MISSING_PACKAGE,
        FailureClass.PACKAGES,
        FailureClass.UNSUPPORTED,
        FailureClass.SCRIPT,
        FailureClass.BOOT,
        FailureClass.BAD_INPUT,
        FailureClass.SIGNATURE,
    }
)
"""Failures; the other classes are what happened around the build, in JUnit's words errors."""


def run_as_junit(run: MatrixRun, directory: Path) -> bytes:
    """The whole file, in UTF-8. Logs are found in `directory`."""
    report = JUnitXml(_text(run.matrix))
    places = by_place(run)
    targets, hosts = lines_and_columns(run)
    for host in hosts:
        results = [result for target in targets for result in places.get((target, host), ())]
        if results:
            report.add_testsuite(_suite(run, host, results, directory))
    report.update_statistics()
    file = io.BytesIO()
    report.write(file, pretty=False)
    return file.getvalue()


def _suite(run: MatrixRun, host: str, results: list[CellResult], directory: Path) -> TestSuite:
    suite = TestSuite(_text(host))
    suite.timestamp = datetime.fromtimestamp(run.began, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite.hostname = _text(host)
    suite.id = _text(run.id)
    for name, value in (("matrix", run.matrix), ("run", run.id), ("dibble", run.version)):
        suite.add_property(name, _text(value))
    names = [result.cell.target for result in results]
    for result in results:
        # Cells that share host and target differ in an axis that neither names: the cell's own name tells them apart.
        alone = names.count(result.cell.target) == 1
        suite.add_testcase(_case(run, result, result.cell.target if alone else result.cell.name, directory))
    return suite


def _case(run: MatrixRun, result: CellResult, name: str, directory: Path) -> TestCase:
    # Jenkins takes a class name apart at its dots: package, class.
    owner = ".".join(_text(part).replace(".", "_") for part in (run.matrix, result.cell.host))
    case = TestCase(_text(name), owner, round(result.seconds, 3))
    final = _final(result)
    if final is not None:
        case.result = [final]
    failed = [attempt for attempt in result.attempts if attempt.outcome is Outcome.FAILED]
    if result.outcome is Outcome.FAILED and not isinstance(final, Skipped):
        for attempt in failed[:-1]:
            case.add_interim_result(_interim(attempt, RerunFailure, RerunError))
    elif result.flaky:
        for attempt in failed:
            case.add_interim_result(_interim(attempt, FlakyFailure, FlakyError))
    log = log_end(directory, result, LOG_OF_A_FAILURE) if failed else None
    if log is not None:
        case.system_out = f"(the last lines of {_text(result.log)})\n{log.text}" if log.left_out else log.text
    return case


def _final(result: CellResult) -> FinalResult | None:
    """What became of the case: None for a success."""
    if result.outcome is Outcome.SUCCESS:
        return None
    kind = _text(kind_of(result) or result.outcome.value)
    reason = one_line(result.reason) or kind
    if result.outcome is not Outcome.FAILED:
        return Skipped(reason, kind)
    if result.cell.allow_failure:
        return Skipped(f"failed, which is allowed: {reason}", kind)
    made = Failure if result.failure in FAULTS_OF_THE_BUILD else Error
    final = made(reason, kind)
    final.text = _explained(result.last) if result.last else reason
    return final


def _interim(attempt: Attempt, failure: type[InterimResult], error: type[InterimResult]) -> InterimResult:
    made = failure if attempt.failure in FAULTS_OF_THE_BUILD else error
    interim = made(one_line(attempt.reason), (attempt.failure or attempt.outcome).value)
    interim.stack_trace = _explained(attempt)
    return interim


def _explained(attempt: Attempt) -> str:
    lines = (
        readable(attempt.reason),
        f"hint: {readable(attempt.hint)}" if attempt.hint else "",
        f"worker {_text(attempt.worker)}, exit status {attempt.status}, after {attempt.seconds:.1f} s",
    )
    return "\n".join(line for line in lines if line)


def _text(text: str) -> str:
    """One line that XML 1.0 can hold."""
    return one_line(text)
