"""The command lines made from the table of options, and the habits of getopt(1)."""

from __future__ import annotations

import re

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.cli.build import build
from dibble.cli.disk_image_create import disk_image_create
from dibble.cli.options import expand_abbreviations, settings_of
from dibble.recipe.options import OPTIONS

pytestmark = pytest.mark.unit

# contract.md 1.2: the option strings of disk-image-create, and the two that DIB documents but does not take (D2).
CONTRACT_SHORT = set("aotxucnp")
CONTRACT_LONG = {
    "checksum",
    "image-size",
    "image-extra-size",
    "image-cache",
    "max-online-resize",
    "min-tmpfs",
    "mkfs-journal-size",
    "mkfs-options",
    "no-tmpfs",
    "offline",
    "qemu-img-options",
    "root-label",
    "ramdisk-element",
    "install-type",
    "docker-target",
    "logfile",
}


def flags_of(command: click.Command) -> set[str]:
    return {flag for param in command.params if isinstance(param, click.Option) for flag in param.opts}


def parsed(*argv: str) -> dict[str, object]:
    context = disk_image_create.make_context("disk-image-create", list(argv))
    elements = context.params.pop("elements")
    return {**settings_of(context.params, "disk-image-create"), "elements": elements}


def test_the_compatible_command_has_exactly_the_contract_s_options() -> None:
    expected = {f"-{letter}" for letter in CONTRACT_SHORT} | {f"--{name}" for name in CONTRACT_LONG}
    assert flags_of(disk_image_create) == expected | {"--version"}


def test_build_has_every_option_of_the_compatible_command_and_long_names_for_the_short_ones() -> None:
    own = flags_of(build)
    assert flags_of(disk_image_create) - {"--version"} <= own
    for option in OPTIONS:
        if option.flags_for("build"):
            assert any(flag.startswith("--") for flag in option.flags_for("build")), option.key


def test_flags_keys_variables_and_recipe_keys_are_unique() -> None:
    flags = [flag for option in OPTIONS for flag in option.flags_for("build")]
    assert len(flags) == len(set(flags))
    for names in (
        [option.key for option in OPTIONS],
        [option.variable for option in OPTIONS if option.variable],
        [option.recipe_key for option in OPTIONS if option.recipe_key],
    ):
        assert len(names) == len(set(names))


def test_every_option_has_help_and_says_its_variable() -> None:
    shown = " ".join(build.get_help(click.Context(build)).split())
    for option in OPTIONS:
        assert option.help.endswith("."), option.key
        if option.flags_for("build") and option.variable:
            assert f"[{option.variable}]" in shown


def test_an_unambiguous_beginning_stands_for_the_option() -> None:
    assert parsed("--check", "an-os")["checksums"] == ("md5", "sha256")
    assert parsed("--root", "x", "an-os")["root_label"] == "x"
    assert parsed("--mkfs-o=-m 0", "an-os")["mkfs_options"] == "-m 0"


def test_an_ambiguous_beginning_is_refused_with_the_candidates() -> None:
    with pytest.raises(click.UsageError, match="--image-cache or --image-extra-size or --image-size"):
        parsed("--image", "1", "an-os")


def test_an_exact_name_is_not_ambiguous() -> None:
    params = [click.Option(["--root"], is_flag=True), click.Option(["--root-label"])]
    assert expand_abbreviations(["--root"], params) == ["--root"]


def test_a_value_that_looks_like_an_option_stays_a_value() -> None:
    assert parsed("--mkfs-options", "--check", "an-os") == {"mkfs_options": "--check", "elements": ("an-os",)}
    assert parsed("-xo", "--check", "an-os") == {"trace": 1, "name": "--check", "elements": ("an-os",)}


def test_a_value_may_follow_its_letter_at_once() -> None:
    assert parsed("-ofoo", "-xt", "raw", "an-os") == {
        "name": "foo",
        "trace": 1,
        "outputs": ("raw",),
        "elements": ("an-os",),
    }


def test_two_dashes_end_the_options() -> None:
    assert parsed("-x", "--", "--check", "-o") == {"trace": 1, "elements": ("--check", "-o")}


def test_a_flag_takes_no_value() -> None:
    with pytest.raises(click.UsageError, match="checksum"):
        parsed("--checksum=1", "an-os")


def test_an_option_without_its_value_is_refused() -> None:
    with pytest.raises(click.UsageError, match="requires an argument"):
        parsed("an-os", "-o")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image-size", "ten"], r'option --image-size takes a number of GiB.*not "ten"'),
        (["--image-extra-size", "1 parsec"], "takes a number of MiB"),
        (["--min-tmpfs", "2.5"], 'option --min-tmpfs takes a whole number, not "2.5"'),
        (["--max-online-resize", "-3"], "takes a whole number"),
    ],
)
def test_a_bad_value_names_its_option(argv: list[str], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        parsed(*argv, "an-os")


LONG = sorted(f"--{name}" for name in CONTRACT_LONG)


@given(st.sampled_from(LONG), st.integers(min_value=3, max_value=30))
def test_a_beginning_is_expanded_exactly_when_it_is_unambiguous(name: str, length: int) -> None:
    beginning = name[:length]
    candidates = [known for known in [*LONG, "--version", "--help"] if known.startswith(beginning)]
    params = disk_image_create.get_params(click.Context(disk_image_create))
    if beginning in candidates:
        assert expand_abbreviations([beginning], params) == [beginning]
    elif len(candidates) == 1:
        assert expand_abbreviations([beginning], params) == candidates
    else:
        with pytest.raises(click.UsageError, match=re.escape(" or ".join(candidates))):
            expand_abbreviations([beginning], params)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_what_follows_two_dashes_is_never_touched(words: list[str]) -> None:
    params = disk_image_create.get_params(click.Context(disk_image_create))
    assert expand_abbreviations(["--", *words], params) == ["--", *words]
