"""The key of a step: whatever its result depends on changes it, nothing else does."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.plan.key import DESCRIPTIVE, LATE, VOLATILE, key_of, named_files, shown_files, shown_parts
from dibble.plan.manifest import changed
from dibble.plan.step import Step

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

FILES = {
    "install.d/10-tool": "xaaa",
    "install.d/data": "-bbb",
    "post-install.d/10-other": "xccc",
    "environment.d/10-env.bash": "-ddd",
    "pkg-map": "-eee",
}
TEXTS = {"install.d/10-tool": b"echo hello", "environment.d/10-env.bash": b"export A=1"}
STEP = Step("install.d/10-tool", "install.d", "inside", script="10-tool")


def key(
    step: Step = STEP,
    *,
    tree: str = "t",
    files: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    texts: dict[str, bytes] | None = None,
    constants: dict[str, str] | None = None,
    element_files: dict[str, bytes] | None = None,
) -> str:
    return key_of(
        step,
        tree=tree,
        manifest=MappingProxyType(dict(sorted((files or FILES).items()))),
        environment=environment or {"DIB_RELEASE": "trixie"},
        read=lambda name: (texts or TEXTS).get(name, b""),
        constants=constants or {"arch": "amd64"},
        element_files=element_files or {},
    ).value


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("post-install.d")])
def test_a_change_of_any_file_that_the_phase_sees_changes_the_key(name: str) -> None:
    assert key(files={**FILES, name: "xnew"}) != key()


def test_a_file_of_another_phase_does_not_count() -> None:
    assert key(files={**FILES, "post-install.d/10-other": "xnew"}) == key()


def test_an_extra_data_script_that_works_on_the_hooks_tree_sees_the_files_of_all_phases() -> None:
    step = Step("extra-data.d/1-x", "extra-data.d", "outside", script="1-x")
    files = {**FILES, "extra-data.d/1-x": "x1"}
    later = {**files, "post-install.d/10-other": "xnew"}
    texts = {**TEXTS, "extra-data.d/1-x": b"cp x $TMP_HOOKS_PATH/install.d"}
    assert key(step, files=files, texts=texts) != key(step, files=later, texts=texts)
    assert key(step, files=files) == key(step, files=later), "it does not work on the hooks tree"


OTHER = {**FILES, "install.d/60-other": "x60"}


@pytest.mark.parametrize(
    "text",
    [
        b"for f in $(dirname $0)/*; do :; done",
        b'ls "$(dirname "$0")"',
        b"find $(dirname ${BASH_SOURCE[0]}) -type f",
        b". /tmp/in_target.d/install.d/60-other",
        b'source "$(dirname $0)/60-other"',
        b"run-parts /tmp/in_target.d/install.d",
        b"cp -r $TMP_HOOKS_PATH /x",
    ],
)
def test_a_script_that_looks_at_others_of_its_phase_depends_on_them(text: bytes) -> None:
    texts = {**TEXTS, "install.d/10-tool": text}
    assert key(files=OTHER, texts=texts) != key(files={**OTHER, "install.d/60-other": "xnew"}, texts=texts)


@pytest.mark.parametrize(
    "text",
    [
        b"echo hello",
        b'package-installs -d "$(dirname "$0")"',
        b"for program in /usr/bin/${0##*/}; do :; done",
        b"package-installs-v2 --phase install.d /tmp/x",
        b"# see $0 and find",
    ],
)
def test_another_script_of_the_phase_does_not_count_for_one_that_does_not_look(text: bytes) -> None:
    texts = {**TEXTS, "install.d/10-tool": text}
    assert key(files=OTHER, texts=texts) == key(files={**OTHER, "install.d/60-other": "xnew"}, texts=texts)


def test_a_command_in_bin_that_a_script_names_counts_as_its_own_text() -> None:
    files = {**OTHER, "bin/walk": "xw"}
    texts = {**TEXTS, "install.d/10-tool": b"walk", "bin/walk": b"ls $TMP_HOOKS_PATH/install.d"}
    assert key(files=files, texts=texts) != key(files={**files, "install.d/60-other": "xnew"}, texts=texts)


@pytest.mark.parametrize("name", ["CI", "CI_JOB_ID", "GITHUB_SHA", "BUILD_NUMBER", "JOB_NAME", "TMUX_PANE"])
def test_a_variable_of_a_ci_run_counts_only_where_its_name_stands(name: str) -> None:
    one, two = {"DIB_RELEASE": "trixie", name: "1"}, {"DIB_RELEASE": "trixie", name: "2"}
    assert key(environment=one) == key(environment=two)
    texts = {**TEXTS, "install.d/10-tool": b"echo $" + name.encode()}
    assert key(environment=one, texts=texts) != key(environment=two, texts=texts)


def test_what_is_kept_of_a_key_has_no_secrets() -> None:
    shown = shown_parts({"variable DIB_DEV_USER_PASSWORD": "hunter2", "variable DIB_RELEASE": "trixie"})
    assert "hunter2" not in str(shown)
    assert shown["variable DIB_RELEASE"] == "trixie"


@given(st.dictionaries(st.sampled_from(["DIB_RELEASE", "FOO", "DIB_X", "A"]), st.text(max_size=5), min_size=1))
def test_any_other_value_of_a_variable_changes_the_key(environment: dict[str, str]) -> None:
    name = sorted(environment)[0]
    assert key(environment=environment) != key(environment={**environment, name: environment[name] + "x"})


@given(st.sampled_from(sorted(VOLATILE)), st.text(max_size=8))
def test_volatile_variables_do_not_count(name: str, value: str) -> None:
    assert key(environment={"DIB_RELEASE": "trixie", name: value}) == key()


@given(st.sampled_from(sorted(DESCRIPTIVE)))
def test_a_variable_of_the_whole_image_counts_only_where_its_name_stands(name: str) -> None:
    shown = name.removeprefix("BASH_FUNC_").removesuffix("%%").encode()
    one, two = {"DIB_RELEASE": "trixie", name: "1"}, {"DIB_RELEASE": "trixie", name: "2"}
    assert key(environment=one) == key(environment=two)
    texts = {**TEXTS, "install.d/10-tool": b"echo $" + shown}
    assert key(environment=one, texts=texts) != key(environment=two, texts=texts)


@given(st.sampled_from(sorted(LATE)))
def test_a_variable_of_the_last_steps_counts_where_more_than_its_own_default_names_it(name: str) -> None:
    one, two = {"DIB_RELEASE": "trixie", name: "1"}, {"DIB_RELEASE": "trixie", name: "2"}
    shown = name.encode()
    default = b"    export " + shown + b"=${" + shown + b":-no fb=1}\n"
    for lines, counts in (
        (default, False),
        (default + b"export OTHER=${OTHER:-$" + shown + b"}\n", True),
        (b"export " + shown + b"=${" + shown + b":-$(id)}\n", True),
        (b"export OTHER=${" + shown + b":-x}\n", True),
    ):
        texts = {**TEXTS, "environment.d/10-env.bash": lines}
        assert (key(environment=one, texts=texts) != key(environment=two, texts=texts)) is counts, lines
    texts = {**TEXTS, "install.d/10-tool": b"echo $" + shown}
    assert key(environment=one, texts=texts) != key(environment=two, texts=texts)


@given(st.permutations(sorted(FILES)))
def test_the_order_in_which_files_were_found_does_not_count(names: list[str]) -> None:
    assert key(files={name: FILES[name] for name in names}) == key()


@pytest.mark.parametrize("changed_part", ["tree", "constants", "settings"])
def test_tree_constants_and_settings_count(changed_part: str) -> None:
    if changed_part == "tree":
        assert key(tree="other") != key()
    elif changed_part == "constants":
        assert key(constants={"arch": "arm64"}) != key()
    else:
        one = Step("engine/packages", "packages", "engine", settings={"packages": "a"})
        two = Step("engine/packages", "packages", "engine", settings={"packages": "b"})
        assert key(one) != key(two)


def test_packages_of_the_command_line_depend_on_what_environment_d_says_and_no_other_work_of_the_engine_does() -> None:
    for name, counts in (("packages", True), ("fstab", False)):
        step = Step(f"engine/{name}", name, "engine")
        assert (key(step, files={**FILES, "environment.d/10-env.bash": "-new"}) != key(step)) is counts
        assert (key(step, environment={"DIB_RELEASE": "sid"}) != key(step)) is counts
        assert key(step, files={**FILES, "install.d/10-tool": "xnew"}) == key(step)
        assert key(step, environment={"DIB_RELEASE": "trixie", "IMAGE_NAME": "x"}) == key(step)


def test_a_file_named_by_a_variable_or_below_home_counts_by_content(tmp_path: Path) -> None:
    named = tmp_path / "sources.list"
    named.write_text("one")
    (tmp_path / "id.pub").write_text("key")
    variables, home = {"DIB_APT_SOURCES": str(named)}, str(tmp_path)
    before = named_files(variables, home, [b"cat ~/id.pub"])
    assert set(before) == {str(named), str(tmp_path / "id.pub")}
    named.write_text("two")
    middle = named_files(variables, home, [b"cat ~/id.pub"])
    (tmp_path / "id.pub").write_text("other")
    after = named_files(variables, home, [b"cat ~/id.pub"])
    assert len({tuple(found.values()) for found in (before, middle, after)}) == 3


def test_files_of_a_list_count_and_so_do_those_right_in_a_directory_of_a_variable_of_dib(tmp_path: Path) -> None:
    for name in ("a.gpg", "b.gpg", "keys/c.gpg", "keys/below/d.gpg", "my keys/e.gpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    a, b, keys, e = (str(tmp_path / name) for name in ("a.gpg", "b.gpg", "keys", "my keys/e.gpg"))
    variables = {
        "DIB_KEYS": f"{a} https://example.org/x.gpg file://{b}",
        "DIB_ADD_APT_KEYS": keys,
        "DIB_ONE": e,
        "OTHER": f"see {b}",
    }
    assert set(named_files(variables, "", [])) == {a, b, e, f"{keys}/c.gpg"}
    assert {str(path) for path in shown_files(variables) if path.is_file()} == {a, b, e, f"{keys}/c.gpg"}
    assert named_files({"OTHER": f"see {b}", "PATH": f"{a}:{b}", "THEIRS": keys}, "", []) == {}
    assert shown_files({"DIB_PYTHON_LOGGING_CONFIG_FILE": a}) == [], "what does not count is not shown"


def test_a_removed_directory_takes_its_files_out_of_the_manifest() -> None:
    manifest = changed(MappingProxyType(FILES), {"install.d": None, "bin/x": "x1"})
    assert sorted(manifest) == ["bin/x", "environment.d/10-env.bash", "pkg-map", "post-install.d/10-other"]


def test_package_lists_and_maps_of_elements_count_where_they_are_gathered() -> None:
    gather = Step("extra-data.d/1-x", "extra-data.d", "outside", script="1-x")
    files = {**FILES, "extra-data.d/1-x": "x1"}
    one, two = {"/e/pkg-map": b"{}"}, {"/e/pkg-map": b"{ }"}
    assert key(gather, files=files, element_files=one) != key(gather, files=files, element_files=two)
    assert key(element_files=one) == key(element_files=two), "later steps have them in the tree"


def test_a_condition_in_a_package_list_names_a_descriptive_variable() -> None:
    gather = Step("extra-data.d/1-x", "extra-data.d", "outside", script="1-x")
    files = {**FILES, "extra-data.d/1-x": "x1"}
    lists = {"/e/package-installs.yaml": b"xfsprogs:\n  when: FS_TYPE = xfs\n"}
    keys = {key(gather, files=files, element_files=lists, environment={"FS_TYPE": kind}) for kind in ("xfs", "ext4")}
    assert len(keys) == 2
    assert key(gather, files=files, environment={"FS_TYPE": "xfs"}) == key(
        gather, files=files, environment={"FS_TYPE": "ext4"}
    )


def test_a_variable_is_named_by_its_whole_name_only() -> None:
    texts = {**TEXTS, "install.d/10-tool": b"echo $DIB_SKIP_BASE_PACKAGE_INSTALL"}
    assert "SKIP_BASE" in DESCRIPTIVE
    assert key(texts=texts, environment={"SKIP_BASE": "0"}) == key(texts=texts, environment={"SKIP_BASE": "1"})


def test_the_files_right_in_a_directory_that_a_variable_of_dib_names_count(tmp_path: Path) -> None:
    (tmp_path / "key.asc").write_text("one")
    before = named_files({"DIB_ADD_APT_KEYS": str(tmp_path)}, "", ())
    (tmp_path / "key.asc").write_text("two")
    assert named_files({"DIB_ADD_APT_KEYS": str(tmp_path)}, "", ()) != before


def test_a_path_of_the_image_in_a_descriptive_variable_is_no_host_file() -> None:
    """DIB_MOUNTPOINTS is `/` for most images: the files in the host's root are not meant."""
    step = Step("install.d/10-tool", "install.d", "inside", script="10-tool")
    found = key_of(
        step,
        tree="t",
        manifest=MappingProxyType(FILES),
        environment={"DIB_MOUNTPOINTS": "/"},
        read=lambda name: TEXTS.get(name, b""),
        constants={},
    )
    assert not [part for part in found.parts if part.startswith("host file")]


def test_a_large_file_counts_by_size_and_time(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    with image.open("wb") as file:
        file.truncate(65 << 20)
    os.utime(image, ns=(1, 1))
    before = named_files({"DIB_LOCAL_IMAGE": str(image)}, "", ())
    os.utime(image, ns=(1, 2))
    assert named_files({"DIB_LOCAL_IMAGE": str(image)}, "", ()) != before
