"""One try at a cell: what the build and the boot say becomes the result. A program stands in for dibble itself."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from dibble.fleet import work
from dibble.fleet.cells import Work
from dibble.fleet.model import Cell, FailureClass, Outcome
from dibble.fleet.pool import Job, JobResult
from dibble.fleet.spec import BootCheck, Policy
from dibble.fleet.work import INTERRUPTED, Stop, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.unit

BUILT = [
    {"event": "StepFinished", "step": "a"},
    {"event": "ArtifactWritten", "path": "x.qcow2", "format": "qcow2", "size": 10, "allocated": 5},
    {"event": "BuildFinished", "steps_run": 1, "steps_cached": 4, "timings": [["a", 1.5]], "status": 0, "seconds": 2},
]
BOOTED = [{"event": "BootFinished", "ok": True, "seconds": {"kernel": 3.0, "prompt": 41.2}, "accelerator": "tcg"}]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make `dibble` a program of a few lines of Python; `words` are its arguments, `say` prints an event."""

    def make(text: str) -> None:
        program = tmp_path / "stand_in.py"
        head = "import json, os, sys, signal, time\nwords = sys.argv[1:]\n"
        say = "def say(*events):\n    for one in events: print(json.dumps(one), flush=True)\n"
        program.write_text(f"{head}{say}BUILT, BOOTED = {BUILT!r}, {BOOTED!r}\n{text}\n")
        monkeypatch.setattr(work, "DIBBLE", (sys.executable, str(program)))

    return make


def job(folder: Path, policy: Policy = Policy(boot=False)) -> Job:  # noqa: B008 - a frozen value
    cell = Cell("local/x", "local", "x", "key")
    recipe = {"elements": ["small"], "preset": "kvm"}
    return Job(Work(cell, recipe=recipe, policy=policy), folder / "cell", folder / "store", dict(os.environ))


def run(made: Job, stop: Stop | None = None) -> tuple[JobResult, list[Mapping[str, object]]]:
    heard: list[Mapping[str, object]] = []
    return run_job(made, heard.append, stop or Stop()), heard


def test_what_a_build_says_is_in_the_result(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("assert words == ['build', '--json', 'cell.yaml'], words\nsay(*BUILT)")
    result, heard = run(job(tmp_path))
    assert result.attempt.outcome is Outcome.SUCCESS
    assert (result.steps_run, result.steps_cached, result.timings) == (1, 4, (("a", 1.5),))
    assert [(output.name, output.size, output.allocated) for output in result.outputs] == [("x.qcow2", 10, 5)]
    assert heard == BUILT
    recipe = (tmp_path / "cell/cell.yaml").read_text()
    assert recipe.startswith("# The cell local/x\n")
    assert "logfile: build.log" in recipe


def test_an_error_has_the_class_that_the_build_gave_it(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    failed = {"event": "Failed", "failure": "mirror mid-sync", "message": "it\nchanges", "hint": "wait", "status": 1}
    stand_in(f"say({failed!r}); sys.exit(1)")
    attempt = run(job(tmp_path))[0].attempt
    assert (attempt.failure, attempt.reason, attempt.hint) == (FailureClass.MID_SYNC, "it changes", "wait")
    assert attempt.status == 1


@pytest.mark.parametrize(
    ("text", "failure", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", FailureClass.WORKER_LOST, "killed by signal 9"),
        ("print('KeyError: x'); sys.exit(70)", FailureClass.DIBBLE, "KeyError: x"),
        ("print('dibble: unknown option'); sys.exit(2)", FailureClass.BAD_INPUT, "unknown option"),
    ],
)
def test_a_build_that_says_no_reason_is_classed_by_how_it_ended(
    tmp_path: Path, stand_in: Callable[[str], None], text: str, failure: FailureClass, reason: str
) -> None:
    stand_in(text)
    attempt = run(job(tmp_path))[0].attempt
    assert (attempt.failure, attempt.reason) == (failure, reason)


BOOT = BootCheck(timeout_s=60, login="me", password="x", commands=("true",))


def test_an_image_is_booted_as_the_file_says(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("if words[0] == 'build': say(*BUILT); sys.exit()\njson.dump(words, open('words', 'w')); say(*BOOTED)")
    result, _ = run(job(tmp_path, Policy(boot=BOOT)))
    assert result.attempt.outcome is Outcome.SUCCESS
    assert result.boot == "login after 41 s (tcg)"
    cell = tmp_path / "cell"
    assert json.loads((cell / "words").read_text()) == [
        *("boot", "--json", "--timeout", "60", "--memory", "1024", "--login", "me", "--password", "x"),
        *("--command", "true", "--environment", "kvm", "--serial-log", str(cell / "boot.log"), str(cell / "x.qcow2")),
    ]  # fmt: skip


def test_an_image_that_does_not_come_up_is_a_boot_failure(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    error = {"message": "no prompt after 60 s", "hint": "look"}
    finished = {"event": "BootFinished", "ok": False, "seconds": {}, "error": error}
    stand_in(f"say(*BUILT) if words[0] == 'build' else (say({finished!r}), sys.exit(1))")
    attempt = run(job(tmp_path, Policy(boot=BOOT)))[0].attempt
    assert (attempt.failure, attempt.reason, attempt.hint) == (FailureClass.BOOT, "no prompt after 60 s", "look")


def test_what_does_not_end_in_time_is_ended(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\ntime.sleep(600)")
    attempt = run(job(tmp_path, Policy(boot=False, timeout_s=1)))[0].attempt
    assert (attempt.failure, attempt.reason) == (FailureClass.TIMEOUT, "not done after 1 s")


def test_a_try_that_is_stopped_says_nothing_of_its_cell(tmp_path: Path, stand_in: Callable[[str], None]) -> None:
    stand_in("say({'event': 'BuildStarted'})\ntime.sleep(600)")
    stop = Stop()
    result = run_job(job(tmp_path), lambda _: threading.Thread(target=stop.now, args=(INTERRUPTED,)).start(), stop)
    assert result.interrupted
    assert result.attempt.status != 0
