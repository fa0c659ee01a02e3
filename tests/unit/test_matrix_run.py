"""When a cell runs, is tried again, is left out, and what of a run is kept."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.unit.matrix_cells import Heard, ScriptedPool, failure, run_of, success, work

from dibble.cli.matrix import build_environment, selected
from dibble.cli.matrix_plain import lines_of
from dibble.errors import HostError, ReadError, UsageError
from dibble.fleet.model import FailureClass, Outcome
from dibble.fleet.nested import unpacked
from dibble.fleet.run import status_of
from dibble.fleet.state import JOURNAL, journal

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.fleet.model import MatrixRun
    from dibble.fleet.pool import Job, JobResult

pytestmark = pytest.mark.unit


def outcomes(run: MatrixRun) -> dict[str, str]:
    return {result.cell.name: result.outcome.value for result in run.results}


def test_a_cell_waits_for_what_it_needs(tmp_path: Path) -> None:
    pool = ScriptedPool(slots=3)
    run = run_of([work("a", needs=["b"]), work("b", needs=["c"]), work("c")], pool, tmp_path)
    assert pool.started == ["c", "b", "a"]
    assert set(outcomes(run).values()) == {"success"}
    assert status_of(run) == 0


def test_what_needs_a_failed_cell_is_skipped_with_all_behind_it(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda _: failure(FailureClass.SCRIPT))
    run = run_of([work("a"), work("b", needs=["a"]), work("c", needs=["b"])], pool, tmp_path)
    assert outcomes(run) == {"a": "failed", "b": "skipped", "c": "skipped"}
    assert [result.reason for result in run.results] == ["it broke", "a was not built", "b was not built"]
    assert status_of(run) == 1


def test_a_pair_that_cannot_be_is_not_started_and_is_no_failure(tmp_path: Path) -> None:
    pool = ScriptedPool()
    run = run_of([work("a", unsupported="there is no such"), work("b")], pool, tmp_path)
    assert pool.started == ["b"]
    assert run.results[0].outcome is Outcome.UNSUPPORTED
    assert run.results[0].reason == "there is no such"
    assert status_of(run) == 0


def test_a_failure_that_is_allowed_fails_only_its_cell(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda _: failure(FailureClass.SCRIPT))
    run = run_of([work("a", allow_failure=True)], pool, tmp_path, fail_fast=True)
    assert outcomes(run) == {"a": "failed"}
    assert status_of(run) == 0


def test_a_cell_that_passes_on_a_retry_is_flaky(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda job: success() if job.attempt == 2 else failure(FailureClass.NETWORK))
    heard = Heard()
    run = run_of([work("a", retries=2)], pool, tmp_path, heard=heard)
    (result,) = run.results
    assert result.flaky
    assert [one.outcome for one in result.attempts] == [Outcome.FAILED, Outcome.SUCCESS]
    assert [line for event in heard.events for line in lines_of(event)][1:-1] == [
        "a: started",
        "a: failed after 1.0 s, network, to be tried again: it broke",
        "  log: cells/a/build.log",
        "a: started, try 2",
        "a: success, on a retry after 1.0 s",
    ]


def test_a_cell_whose_machine_was_lost_before_is_not_flaky(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda job: success() if job.attempt == 2 else failure(FailureClass.WORKER_LOST))
    (result,) = run_of([work("a", retries=2)], pool, tmp_path).results
    assert [one.outcome for one in result.attempts] == [Outcome.FAILED, Outcome.SUCCESS]
    assert not result.flaky


@pytest.mark.parametrize("kind", [FailureClass.BAD_INPUT, FailureClass.MISSING_PACKAGE, FailureClass.DISK_FULL])
def test_a_failure_that_stays_is_not_tried_again(tmp_path: Path, kind: FailureClass) -> None:
    pool = ScriptedPool(lambda _: failure(kind))
    (result,) = run_of([work("a", retries=3)], pool, tmp_path).results
    assert len(result.attempts) == 1


def test_retries_come_to_an_end(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda _: failure(FailureClass.NETWORK))
    (result,) = run_of([work("a", retries=2)], pool, tmp_path).results
    assert (len(result.attempts), result.outcome, result.flaky) == (3, Outcome.FAILED, False)


def test_fail_fast_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    pool = ScriptedPool(lambda job: failure(FailureClass.SCRIPT) if job.name == "b" else success())
    run = run_of([work(name) for name in "abcde"], pool, tmp_path, fail_fast=True)
    assert outcomes(run) == {"a": "success", "b": "failed", "c": "skipped", "d": "skipped", "e": "skipped"}
    assert run.results[2].reason == "the run was stopped early"
    assert pool.started == ["a", "b", "c"]


class Interrupting:
    """Ends jobs well, and is interrupted after some of them."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, _: Job) -> JobResult:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return success()


def test_an_interrupted_run_goes_on_with_what_is_not_done(tmp_path: Path) -> None:
    works = [work(name) for name in "abcd"]
    first = run_of(works, ScriptedPool(Interrupting(2)), tmp_path)
    assert outcomes(first) == {"a": "success", "b": "success", "c": "waiting", "d": "waiting"}
    assert first.ended is None
    assert status_of(first) == 130
    pool = ScriptedPool()
    second = run_of(works, pool, tmp_path)
    assert pool.started == ["c", "d"]
    assert second.id == first.id
    assert [result.resumed for result in second.results] == [True, True, False, False]
    third = run_of(works, again := ScriptedPool(), tmp_path)
    assert third.id != first.id
    assert again.started == ["a", "b", "c", "d"]


def test_a_cell_whose_inputs_have_changed_is_built_again(tmp_path: Path) -> None:
    run_of([work("a"), work("b")], ScriptedPool(Interrupting(1)), tmp_path)
    pool = ScriptedPool()
    run_of([work("a", key="other"), work("b")], pool, tmp_path)
    assert pool.started == ["a", "b"]


def test_a_half_written_line_of_the_journal_is_passed_over(tmp_path: Path) -> None:
    run_of([work("a"), work("b")], ScriptedPool(Interrupting(1)), tmp_path)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"result": {"cell"')
    pool = ScriptedPool()
    run_of([work("a"), work("b")], pool, tmp_path)
    assert pool.started == ["b"]
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    assert "ended" in json.loads(lines[-1])


def test_two_runs_do_not_share_a_directory(tmp_path: Path) -> None:
    with journal(tmp_path), pytest.raises(HostError, match="another run works in"), journal(tmp_path):
        pass


def test_a_part_of_the_cells_can_be_built_and_the_rest_later(tmp_path: Path) -> None:
    works = [work("a"), work("b", needs=["a"]), work("c")]
    names = selected(works, ["b"])
    assert names == {"a", "b"}
    run = run_of(works, ScriptedPool(), tmp_path, only=names)
    assert outcomes(run) == {"a": "success", "b": "success", "c": "waiting"}
    run_of(works, pool := ScriptedPool(), tmp_path)
    assert pool.started == ["c"]
    with pytest.raises(UsageError, match='no cell is named "x"'):
        selected(works, ["x"])


def test_relative_paths_in_variables_are_those_of_the_caller(tmp_path: Path) -> None:
    given = {"ELEMENTS_PATH": "own:/abs", "DIB_IMAGE_CACHE": "cache", "IMAGE_NAME": "x", "DIB_RELEASE": "13"}
    assert build_environment(given, tmp_path) == {
        "ELEMENTS_PATH": f"{tmp_path}/own:/abs",
        "DIB_IMAGE_CACHE": f"{tmp_path}/cache",
        "DIB_RELEASE": "13",
    }


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = kind, link, 0o755
    return found


def test_the_tar_of_a_tree_is_unpacked_once_and_without_devices(tmp_path: Path) -> None:
    members = [
        member(".", tarfile.DIRTYPE), member("./usr", tarfile.DIRTYPE), member("./usr/a"),
        member("./bin", tarfile.SYMTYPE, "usr"),
        member("./usr/b", tarfile.LNKTYPE, "./usr/a"), member("./null", tarfile.CHRTYPE),
    ]  # fmt: skip
    tar = tar_of(tmp_path / "tree.tar", *members)
    folder = unpacked(tar, tmp_path / "host", "deb")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["bin", "usr", "usr/a", "usr/b"]
    (folder / "usr/a").unlink()
    assert unpacked(tar, tmp_path / "host", "deb") == folder
    assert not (folder / "usr/a").exists(), "it is not unpacked again"
    tar_of(tmp_path / "tree.tar", member("./new"))
    assert [path.name for path in unpacked(tar, tmp_path / "host", "deb").iterdir()] == ["new"]
    assert unpacked(tmp_path, tmp_path / "other", "deb") == tmp_path, "a directory is taken as it is"


@pytest.mark.parametrize(
    "members",
    [
        [member("../out")],
        [member("away", tarfile.SYMTYPE, "/tmp"), member("away/out")],
        [member("out", tarfile.LNKTYPE, "../../etc/passwd")],
    ],
)
def test_a_tar_that_leads_out_of_its_tree_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(ReadError, match="leads out of it"):
        unpacked(tar_of(tmp_path / "x.tar", *members), tmp_path / "host", "deb")


def test_a_tree_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="neither a directory nor a tar"):
        unpacked(tmp_path / "missing", tmp_path / "host", "deb")
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(ReadError, match="is no tar that can be read"):
        unpacked(tmp_path / "x.tar", tmp_path / "host", "deb")
