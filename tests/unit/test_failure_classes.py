"""The class of a failure comes from evidence."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dibble.cli.display_json import JsonReporter
from dibble.cli.main import show_error
from dibble.errors import (
    BootError,
    DibbleError,
    FetchError,
    FileGone,
    HookFailed,
    HookOutput,
    HostError,
    Interrupted,
    MidSync,
    NoSuchPackage,
    NoSuchSuite,
    PackageError,
    ProcessKilled,
    SignatureError,
    StoreError,
    ToolFailed,
    ToolMissing,
    UsageError,
)
from dibble.fleet.classify import classify, of_status
from dibble.fleet.model import FailureClass
from dibble.packages.apt_failures import resolve_failure, update_failure
from dibble.run.failure_evidence import look
from dibble.sandbox.process import run
from dibble.store.places import store_error

pytestmark = pytest.mark.unit


def hook(status: int = 1) -> HookFailed:
    return HookFailed("it failed", status=status, output=HookOutput())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FetchError("x"), FailureClass.NETWORK),
        (MidSync("x"), FailureClass.MID_SYNC),
        (FileGone("x"), FailureClass.MID_SYNC),
        (NoSuchSuite("x"), FailureClass.UNSUPPORTED),
        (SignatureError("x"), FailureClass.SIGNATURE),
        (NoSuchPackage("x"), FailureClass.MISSING_PACKAGE),
        (PackageError("x"), FailureClass.PACKAGES),
        (ToolMissing("x"), FailureClass.MISSING_TOOL),
        (HostError("x"), FailureClass.HOST),
        (ToolFailed(("mkfs",), 1, ""), FailureClass.TOOL),
        (BootError("x"), FailureClass.BOOT),
        (UsageError("x"), FailureClass.BAD_INPUT),
        (ProcessKilled("x"), FailureClass.WORKER_LOST),
        (DibbleError("x"), FailureClass.DIBBLE),
        (hook(3), FailureClass.SCRIPT),
        (hook(127), FailureClass.MISSING_TOOL),
        (Interrupted("x"), None),
    ],
)
def test_an_error_has_a_class(error: DibbleError, expected: FailureClass | None) -> None:
    assert classify(error) is expected


def test_a_full_disk_is_known_by_the_systems_number_also_in_another_process() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as cause:
            raise store_error(cause, Path("/")) from cause
    except StoreError as found:
        error = found
    assert classify(error) is FailureClass.DISK_FULL
    copy = pickle.loads(pickle.dumps(error))
    copy.__cause__ = None  # a plain pickle leaves it out; one under tblib, which a cluster's library puts in, does not
    assert classify(copy) is FailureClass.DISK_FULL


def test_our_own_output_on_a_full_disk_is_told_as_such() -> None:
    argv = [sys.executable, "-m", "dibble", "--help"]
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[:2] == [
            "dibble: no room is left: No space left on device",
            "  class: disk full",
        ]
        assert "Exception ignored" not in done.stderr
        silent = subprocess.run(argv, env=env, stdout=full, stderr=full, check=False)
    assert silent.returncode == 1
    assert classify(store_error(OSError(errno.EACCES, "no"), Path("/"))) is FailureClass.HOST


def test_a_script_that_failed_on_a_full_disk_was_not_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = hook()
    look(error, [tmp_path], [], "")
    assert classify(error) is FailureClass.SCRIPT
    look(error, [Path("/dev/full-of-nothing"), Path("/sys/kernel")], [], "")
    assert classify(error) is FailureClass.SCRIPT, "a file system without blocks is not full"


def test_a_server_that_takes_no_connection_was_at_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_place = f"127.0.0.1:{server.getsockname()[1]}"
        error = hook()
        look(error, [], [open_place], "")
        assert classify(error) is FailureClass.SCRIPT
    look(error, [], [open_place], "")
    assert error.unreachable == open_place
    assert classify(error) is FailureClass.NETWORK


def test_a_name_that_was_asked_for_in_vain_is_the_networks_fault() -> None:
    error = hook()
    look(error, [], ["192.0.2.1:53"], "")
    assert classify(error) is FailureClass.NETWORK


def test_what_the_engine_could_not_fetch_for_a_script_counts() -> None:
    error = hook()
    look(error, [], [], "mirror.example")
    assert classify(error) is FailureClass.NETWORK


def test_a_program_that_is_not_there_is_a_missing_tool() -> None:
    with pytest.raises(ToolMissing) as caught:
        run(["/no/such/program"], env={})
    assert classify(caught.value) is FailureClass.MISSING_TOOL


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("E: Failed to fetch http://m/dists/s/InRelease  Hash Sum mismatch", FailureClass.MID_SYNC),
        ("E: The repository 'http://m s Release' does not have a Release file.", FailureClass.UNSUPPORTED),
        ("E: Failed to fetch http://m/dists/s/InRelease  Could not connect to m:80", FailureClass.NETWORK),
        ("E: The repository 'http://m s InRelease' is not signed.", FailureClass.SIGNATURE),
    ],
)
def test_what_apt_says_of_a_mirror_has_a_class(output: str, expected: FailureClass) -> None:
    assert classify(update_failure(output, [("http://m", "s")])) is expected


def test_an_unknown_package_is_told_from_packages_that_cannot_be_together() -> None:
    missing = resolve_failure("E: Unable to locate package vmi", ["vmi"], ["s"], ["vim"])
    assert classify(missing) is FailureClass.MISSING_PACKAGE
    text = "The following packages have unmet dependencies:\n a : Conflicts: b\nE: Unable to correct problems"
    assert classify(resolve_failure(text, ["a"], ["s"], ["a"])) is FailureClass.PACKAGES


@pytest.mark.parametrize(
    ("status", "expected"),
    [(2, FailureClass.BAD_INPUT), (70, FailureClass.DIBBLE), (137, FailureClass.WORKER_LOST), (1, FailureClass.DIBBLE)],
)
def test_a_build_that_says_nothing_is_classed_by_its_status(status: int, expected: FailureClass) -> None:
    assert of_status(status) is expected


def test_the_class_is_shown_with_an_error_and_is_in_its_json() -> None:
    stream = io.StringIO()
    show_error(MidSync("the mirror changes", hint="wait"), stream)
    assert stream.getvalue() == "dibble: the mirror changes\n  class: mirror mid-sync\n  hint: wait\n"
    stream = io.StringIO()
    JsonReporter(stream).failed(MidSync("the mirror changes"))
    assert json.loads(stream.getvalue())["failure"] == "mirror mid-sync"


def test_what_the_user_wrote_wrongly_needs_no_class() -> None:
    stream = io.StringIO()
    show_error(UsageError("no such option"), stream)
    assert stream.getvalue() == "dibble: no such option\n"
