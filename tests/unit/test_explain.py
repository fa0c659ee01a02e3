"""Which stored key is nearest, and what differs from it, to the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.plan.explain import Sources, different, first_difference, nearest, reasons
from dibble.plan.step import Key

pytestmark = pytest.mark.unit

A, B = "x" + "a" * 64, "x" + "b" * 64
PARTS = {"script": A, "file bin/tool": A, "variable DIB_RELEASE": "trixie", "tree": "t1", "arch": "amd64"}
TEXTS = {A: b"#!/bin/sh\necho one\n", B: b"#!/bin/sh\necho two\n"}


def sources(now: bytes | None = TEXTS[B]) -> Sources:
    return Sources(now=lambda part: now, then=TEXTS.get, place=lambda part: f"/elements/{part.split(' ')[-1]}")


def test_a_changed_script_is_told_with_its_line_and_both_sides() -> None:
    (reason,) = reasons(Key("k", {**PARTS, "script": B}), PARTS, sources())
    assert reason.text == "/elements/script has changed in line 2"
    assert (reason.where.line, reason.old, reason.new) == (2, "echo one", "echo two")


def test_a_variable_is_told_with_both_values() -> None:
    (reason,) = reasons(Key("k", {**PARTS, "variable DIB_RELEASE": "sid"}), PARTS, sources())
    assert (reason.text, reason.old, reason.new) == ("the variable DIB_RELEASE has another value", "trixie", "sid")


def test_a_secret_is_told_without_its_value() -> None:
    old = {**PARTS, "variable DIB_PASSWORD": "sha256:00000000"}
    (reason,) = reasons(Key("k", {**PARTS, "variable DIB_PASSWORD": "hunter2"}), old, sources())
    assert reason.part == "variable DIB_PASSWORD"
    assert "hunter2" not in reason.text + reason.old + reason.new


def test_the_most_telling_part_comes_first_and_the_tree_last() -> None:
    new = {**PARTS, "tree": "t2", "variable DIB_RELEASE": "sid", "script": B}
    assert different(PARTS, new) == ["script", "variable DIB_RELEASE", "tree"]


def test_a_new_file_and_one_that_is_gone_are_told() -> None:
    new = {name: value for name, value in PARTS.items() if name != "file bin/tool"} | {"file bin/new": A}
    texts = [reason.text for reason in reasons(Key("k", new), PARTS, sources())]
    assert texts == ["/elements/bin/new is new", "/elements/bin/tool is gone"]


def test_a_run_bit_is_told_as_such() -> None:
    (reason,) = reasons(Key("k", {**PARTS, "file bin/tool": "-" + A[1:]}), PARTS, sources())
    assert reason.text == "/elements/bin/tool can no longer be executed"


def test_a_text_that_was_not_kept_gives_the_file_alone() -> None:
    (reason,) = reasons(Key("k", {**PARTS, "script": B}), {**PARTS, "script": "x" + "c" * 64}, sources())
    assert reason.text == "/elements/script has changed"
    assert reason.where.line is None


def test_the_nearest_key_is_that_with_the_fewest_differences_the_newest_of_equals() -> None:
    far = {**PARTS, "variable DIB_RELEASE": "sid", "arch": "arm64"}
    near = {**PARTS, "script": B}
    assert nearest(Key("k", PARTS), [far, near, near]) == 1
    assert nearest(Key("k", PARTS), []) is None


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [(b"a\nb\n", b"a\nc\n", 2), (b"a\n", b"a\nb\n", 2), (b"a\nb\n", b"a\n", 2), (b"", b"x", 1), (b"a\r\n", b"a\n", 1)],
)
def test_the_first_line_that_differs(old: bytes, new: bytes, line: int) -> None:
    assert first_difference(old, new)[0] == line


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_two_texts_have_a_first_difference(old: bytes, new: bytes) -> None:
    line, _, _ = first_difference(old, new)
    assert line >= 1


@given(st.dictionaries(st.sampled_from(sorted(PARTS)), st.text(max_size=3)))
def test_only_what_differs_is_told(changed: dict[str, str]) -> None:
    new = {**PARTS, **changed}
    assert set(different(PARTS, new)) == {name for name in PARTS if PARTS[name] != new[name]}
