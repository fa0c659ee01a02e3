"""Of matrices on a cluster, what needs no cluster: where cells go, what is sent, and what a lost worker costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.unit.matrix_cells import ScriptedPool, run_of, success, work

from dibble.errors import ReadError
from dibble.fleet.cells import Work
from dibble.fleet.facts import has_kvm
from dibble.fleet.inputs import Inputs, kept, missing, receive
from dibble.fleet.model import Attempt, Cell, FailureClass, Outcome
from dibble.fleet.orders import arch_of, job_of, order_of
from dibble.fleet.pieces import PIECE, piece, put_piece
from dibble.fleet.place import Facts, Need, can_any, chosen, room, unfit
from dibble.fleet.pool import Job, JobResult
from dibble.fleet.run import LOST_TRIES
from dibble.fleet.spec import BootCheck, Policy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def worker(native: str = "amd64", *, emulated: str = "", kvm: bool = False, builds: int = 1) -> Facts:
    return Facts("1", "3.13.1", tuple(native.split()), tuple(emulated.split()), kvm, 4, 8 << 30, builds)


def test_a_cell_waits_for_a_worker_of_its_architecture_where_there_is_one() -> None:
    workers = {"a": worker("amd64", emulated="arm64"), "b": worker("arm64")}
    assert chosen(workers, {}, Need("arm64")) == "b"
    assert chosen(workers, {"b": 1}, Need("arm64")) is None, "rather than emulating it on a"


def test_a_cell_of_an_architecture_that_no_worker_has_is_cross_built_by_one_that_can() -> None:
    workers = {"a": worker("amd64"), "b": worker("amd64", emulated="riscv64")}
    assert chosen(workers, {}, Need("riscv64")) == "b"
    assert chosen(workers, {}, Need("s390x")) is None
    assert not can_any(workers, Need("s390x"))


def test_a_boot_prefers_kvm_and_leaves_it_alone_otherwise() -> None:
    workers = {"a": worker(), "k": worker(kvm=True)}
    assert chosen(workers, {}, Need("amd64", boots=True)) == "k"
    assert chosen(workers, {"k": 1}, Need("amd64", boots=True)) == "a", "it is only a preference"
    assert chosen({"k": workers["k"], "z": worker()}, {}, Need("amd64")) == "z"


def test_no_more_builds_run_on_a_worker_than_it_takes() -> None:
    workers = {"a": worker(builds=2), "b": worker(builds=1)}
    assert room(workers, {"a": 1}) == 2
    assert chosen(workers, {"a": 2}, Need("amd64")) == "b"
    assert chosen(workers, {"a": 2, "b": 1}, Need("amd64")) is None


def test_a_cell_goes_elsewhere_than_where_it_was_lost_and_else_where_its_layers_are() -> None:
    workers = {"a": worker(builds=2), "b": worker(builds=2)}
    assert chosen(workers, {}, Need("amd64"), avoided={"a"}) == "b"
    assert chosen({"a": workers["a"]}, {}, Need("amd64"), avoided={"a"}) == "a", "better than nowhere"
    assert chosen(workers, {"b": 1}, Need("amd64"), warm={"b"}) == "b"
    assert chosen(workers, {"a": 1}, Need("amd64")) == "b", "which has more room"


def test_a_worker_with_another_version_is_not_used() -> None:
    assert unfit(worker(), "2") == "has dibble 1, and here is 2"
    assert not unfit(worker(), "1")


def test_a_device_that_makes_no_virtual_machine_is_no_kvm(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    assert not has_kvm(tmp_path / "kvm")
    assert not has_kvm(tmp_path / "missing")


def test_the_architecture_of_a_cell_is_that_of_the_caller_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dibble.fleet.orders._own_arch", lambda: "arm64")
    assert arch_of({"arch": "s390x"}, {"ARCH": "i386"}) == "s390x"
    assert arch_of({}, {"ARCH": "i386"}) == "i386"
    assert arch_of({}, {}) == "arm64"


def job(folder: Path, elements: Path) -> Job:
    cell = Cell("local/x", "local", "x", "key", {"host": "local"})
    recipe = {"elements": ["small"], "elements-path": [str(elements)], "size": 2.5}
    policy = Policy(60, 1, BootCheck(commands=("true",)), False)
    environment = {
        "DIB_RELEASE": "13", "ELEMENTS_PATH": str(elements), "PATH": "/own", "AWS_SECRET_ACCESS_KEY": "x",
        "DIB_IMAGE_CACHE": "/mine", "DIBBLE_REMOTE_CACHE_KEY": "/key", "FS_TYPE": "xfs",
    }  # fmt: skip
    made = Work(cell, recipe=recipe, policy=policy, image="x")
    return Job(made, folder / "cell", folder / "store", environment)


@pytest.fixture
def elements(tmp_path: Path) -> Path:
    path = tmp_path / "elements"
    (path / "small/install.d").mkdir(parents=True)
    (path / "small/install.d/10-x").write_text("#!/bin/sh\n")
    (path / "small/install.d/10-x").chmod(0o755)
    (path / "small/link").symlink_to("install.d")
    (path / ".git").mkdir()
    return path


def test_a_job_arrives_with_its_elements_and_without_what_is_the_callers_own(tmp_path: Path, elements: Path) -> None:
    sent = job(tmp_path, elements)
    text, inputs = order_of(sent, Inputs(tmp_path / "packed"))
    assert "/own" not in text
    assert str(elements) not in text
    (one,) = inputs
    place = tmp_path / "worker"
    (place / "inputs").mkdir(parents=True)
    assert missing(place, [one.name]) == [one.name]
    arrived = place / "inputs/x.part"
    for offset in range(0, one.file.stat().st_size, PIECE):
        put_piece(arrived, offset, piece(one.file, offset))
    receive(place, one.name, arrived)
    assert missing(place, [one.name]) == []
    here = {"PATH": "/bin", "SLURM_JOB_ID": "7", "DIB_IMAGE_CACHE": "/w", "DIBBLE_REMOTE_CACHE_KEY": "/theirs"}
    found = job_of(text, place / "cells/x", place, here, place / "store")
    folder = kept(place, one.name)
    assert found.work.recipe == {**sent.work.recipe, "elements-path": [str(folder)], "arch": arch_of({}, {})}
    assert found.environment == {
        "PATH": "/bin", "DIB_IMAGE_CACHE": "/w", "DIBBLE_REMOTE_CACHE_KEY": "/theirs", "DIB_RELEASE": "13",
        "ELEMENTS_PATH": str(folder), "FS_TYPE": "xfs",
    }  # fmt: skip
    assert (found.work.cell, found.work.policy) == (sent.work.cell, sent.work.policy)
    script = folder / "small/install.d/10-x"
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("#!/bin/sh\n", 0o755)
    assert (folder / "small/link").readlink().name == "install.d"
    assert not (folder / ".git").exists()


def test_the_same_elements_are_the_same_input_whenever_they_were_written(tmp_path: Path, elements: Path) -> None:
    first = Inputs(tmp_path / "a").of(elements)
    os.utime(elements / "small/install.d/10-x", (1, 1))
    assert Inputs(tmp_path / "b").of(elements).name == first.name
    (elements / "small/install.d/10-x").write_text("#!/bin/bash\n")
    assert Inputs(tmp_path / "c").of(elements).name != first.name


def test_an_input_that_arrives_damaged_is_refused(tmp_path: Path, elements: Path) -> None:
    one = Inputs(tmp_path / "packed").of(elements / "small/install.d/10-x")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/x.part").write_text("other")
    with pytest.raises(ReadError, match="arrived damaged"):
        receive(tmp_path, one.name, tmp_path / "inputs/x.part")
    assert missing(tmp_path, [one.name]) == [one.name]


def test_what_is_empty_in_a_file_stays_a_hole_on_the_way(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(3 * PIECE)
        file.write(b"end")
        file.truncate(4 * PIECE + 5)
    pieces = [piece(source, offset) for offset in range(0, source.stat().st_size, PIECE)]
    for number, data in enumerate(pieces):
        put_piece(target, number * PIECE, data)
    assert target.read_bytes() == source.read_bytes()
    assert sum(map(len, pieces)) < 10_000
    assert target.stat().st_blocks * 512 < PIECE


def lost() -> JobResult:
    attempt = Attempt("w1", 0.0, 1.0, Outcome.FAILED, FailureClass.WORKER_LOST, "the worker w1 is gone")
    return JobResult(attempt, lost=True)


def test_a_cell_that_loses_its_worker_is_tried_again_without_retries(tmp_path: Path) -> None:
    run = run_of([work("a"), work("b")], ScriptedPool(lambda job: lost() if job.attempt == 1 else success()), tmp_path)
    assert [[one.outcome for one in result.attempts] for result in run.results] == [
        [Outcome.FAILED, Outcome.SUCCESS]
    ] * 2


def test_a_cell_that_takes_every_worker_along_ends(tmp_path: Path) -> None:
    (result,) = run_of([work("a")], ScriptedPool(lambda _: lost()), tmp_path).results
    assert result.outcome is Outcome.FAILED
    assert result.failure is FailureClass.WORKER_LOST
    assert len(result.attempts) == LOST_TRIES + 1


def test_tries_that_lost_their_worker_do_not_count_as_retries(tmp_path: Path) -> None:
    def outcome(made: Job) -> JobResult:
        broken = JobResult(Attempt("w", 0.0, 1.0, Outcome.FAILED, FailureClass.NETWORK, "no answer"))
        return {1: lost(), 2: broken}.get(made.attempt, success())

    (result,) = run_of([work("a", retries=1)], ScriptedPool(outcome), tmp_path).results
    assert (result.outcome, len(result.attempts)) == (Outcome.SUCCESS, 3)
