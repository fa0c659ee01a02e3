"""A step is named by its id, its script, or the one beginning or end that it has alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import UsageError
from dibble.plan.find_step import step_named

pytestmark = pytest.mark.unit

STEPS = [
    "root.d/10-base",
    "engine/resolv-conf",
    "install.d/10-base",
    "install.d/50-web-server",
    "engine/initramfs",
    "engine/initramfs-again",
    "post-install.d/50-web-server",
    "post-install.d/60-tidy",
]


@pytest.mark.parametrize(
    ("word", "step"),
    [
        ("install.d/50-web-server", "install.d/50-web-server"),  # also the end of another
        ("60-tidy", "post-install.d/60-tidy"),
        ("tidy", "post-install.d/60-tidy"),
        ("60-", "post-install.d/60-tidy"),
        ("root", "root.d/10-base"),
        ("engine/initramfs", "engine/initramfs"),
        ("initramfs", "engine/initramfs"),
        ("-again", "engine/initramfs-again"),
        ("resolv", "engine/resolv-conf"),
    ],
)
def test_a_step_is_found_by(word: str, step: str) -> None:
    assert step_named(word, STEPS) == step


@pytest.mark.parametrize("word", ["50-web-server", "10-base", "server", "post-install.d/", "engine"])
def test_a_word_for_several_steps_names_them(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        step_named(word, STEPS)
    assert f'"{word}"' in caught.value.message
    named = caught.value.hint.removeprefix("say one of: ").split(", ")
    assert len(named) > 1
    assert set(named) <= set(STEPS)


@pytest.mark.parametrize(
    ("word", "near"), [("install.d/50-web-sever", "install.d/50-web-server"), ("60-tdy", "post-install.d/60-tidy")]
)
def test_an_unknown_step_is_told_with_the_nearest(word: str, near: str) -> None:
    with pytest.raises(UsageError, match="unknown step") as caught:
        step_named(word, STEPS)
    assert near in caught.value.hint


def test_a_word_like_nothing_is_told_with_all_steps() -> None:
    with pytest.raises(UsageError) as caught:
        step_named("qqq", STEPS)
    assert all(step in caught.value.hint for step in STEPS)


@given(st.lists(st.from_regex(r"[a-c]\.d/[0-9a-b]{1,3}", fullmatch=True), min_size=1, unique=True), st.data())
def test_every_step_is_found_by_its_id(steps: list[str], data: st.DataObject) -> None:
    step = data.draw(st.sampled_from(steps))
    assert step_named(step, steps) == step
