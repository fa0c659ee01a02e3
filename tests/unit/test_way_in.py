"""The command line in a failure's hint is the user's own, and works when it is copied."""

from __future__ import annotations

import pickle
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.cli.way_in import program, with_way_in
from dibble.errors import DibbleError
from dibble.recipe.load import without

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def hint_of(*arguments: str, keeps: bool = False) -> str:
    error = DibbleError("it broke")
    error.failed_step = "install.d/50-web"
    with_way_in(error, arguments, keeps=keeps)
    (hint,) = error.hints
    return hint


def command_of(hint: str) -> list[str]:
    return shlex.split(hint.rpartition("failed: ")[2])[1:]


def test_the_hint_has_the_users_arguments_quoted_for_a_shell() -> None:
    hint = hint_of("-p", "a b,c", "--mkfs-options", "-m 0", "it's.yaml", "--json")
    assert command_of(hint) == [
        "shell", "--at", "install.d/50-web", "-p", "a b,c", "--mkfs-options", "-m 0", "it's.yaml"
    ]  # fmt: skip


@given(st.lists(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])), max_size=4))
def test_any_argument_comes_through(arguments: list[str]) -> None:
    kept = [argument for argument in arguments if argument != "--"]
    assert command_of(hint_of(*kept))[3:] == kept


def test_a_line_end_in_an_argument_does_not_end_the_hint() -> None:
    hint = hint_of("a\n'b\\c", "web")
    assert "\n" not in hint
    words = hint.rpartition("failed: ")[2].partition("shell ")[2]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], check=True, capture_output=True, text=True)
    assert done.stdout.split("\0") == ["--at", "install.d/50-web", "a\n'b\\c", "web", ""]


def test_what_was_kept_is_entered_with_failed() -> None:
    words = command_of(hint_of("--keep-on-failure", "--refresh", "install", "web", keeps=True))
    assert words == ["shell", "--failed", "web"]


def test_the_hint_that_an_error_has_stays() -> None:
    error = DibbleError("it broke", hint="set DIB_RELEASE\n  to trixie")
    error.failed_step = "install.d/50-web"
    with_way_in(error, ["web"], keeps=False)
    first, second = error.hints
    assert first == "set DIB_RELEASE\n  to trixie"
    assert second.startswith("to look around where it failed: ")
    assert str(error).endswith(f"  hint: {first}\n  hint: {second}")
    assert pickle.loads(pickle.dumps(error)).hints == [first, second]


def test_an_error_of_no_step_has_no_way_in() -> None:
    error = DibbleError("no such element")
    with_way_in(error, ["web"], keeps=False)
    assert error.hints == []


def test_options_go_with_their_values() -> None:
    arguments = ["--at", "50-web", "-n", "--refresh=all", "--after=x", "--failed", "web", "--", "--at"]
    assert without(arguments, "--at", "--after", "--failed") == ["-n", "--refresh=all", "web", "--", "--at"]
    assert command_of(hint_of("-n", "--", "web")) == ["shell", "--at", "install.d/50-web", "-n", "web"]


@pytest.mark.parametrize(
    ("called", "found", "shown"),
    [
        ("./dibble", False, "./dibble"),
        ("dibble", False, "./dibble"),
        ("../work/dibble", False, "../work/dibble"),
        ("{bin}/dibble", True, "dibble"),
        ("{bin}/disk-image-create", True, "dibble"),
        ("{bin}/disk-image-create", False, "{bin}/dibble"),
    ],
)
def test_dibble_is_called_as_the_user_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str, found: bool, shown: str
) -> None:
    (tmp_path / "dibble").write_text("#!/bin/sh\n")
    (tmp_path / "dibble").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if found else "/nonexistent")
    monkeypatch.delenv("DIBBLE_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", [called.format(bin=tmp_path)])
    assert program() == shown.format(bin=tmp_path)
    monkeypatch.setattr(sys, "argv", ["/x/dibble/__main__.py"])
    monkeypatch.setenv("DIBBLE_COMMAND", called.format(bin=tmp_path))
    assert program() == shown.format(bin=tmp_path)
