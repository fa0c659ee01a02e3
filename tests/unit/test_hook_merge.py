from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.element_trees import make_element

from dibble.elements.hooks import digest, digest_of, ignored, merge, read_tree, scripts, visible
from dibble.elements.materialise import write_tree
from dibble.elements.model import Element, HookFile
from dibble.elements.phases import PHASES, sees
from dibble.errors import ElementError

pytestmark = pytest.mark.unit


def ordered(tmp_path: Path, *names: str) -> list[str]:
    element = make_element(tmp_path, "ordering", scripts=[f"install.d/{name}" for name in names])
    return [file.name.removeprefix("install.d/") for file in scripts(merge([element]), "install.d")]


# --- what is merged


def test_directories_and_top_level_files_of_all_elements_are_merged(tmp_path: Path) -> None:
    a = make_element(tmp_path, "a", {"environment.d/10-a": "", "pkg-map": "{}"}, scripts=["install.d/10-a", "bin/tool"])
    b = make_element(tmp_path, "b", {"install.d/data.txt": "", "source-repository-b": ""}, scripts=["install.d/20-b"])
    tree = merge([a, b])
    assert list(tree.files) == [
        "bin/tool",
        "environment.d/10-a",
        "install.d/10-a",
        "install.d/20-b",
        "install.d/data.txt",
        "pkg-map",
        "source-repository-b",
    ]
    assert tree.files["install.d/20-b"] == HookFile("install.d/20-b", b.path / "install.d/20-b", "b", True)
    assert not tree.files["install.d/data.txt"].executable
    assert list(tree.directories) == ["bin", "environment.d", "install.d"]


def test_what_serves_only_the_authors_of_an_element_is_left_out(tmp_path: Path) -> None:
    element = make_element(
        tmp_path,
        "a",
        {
            "README.rst": "",
            "README.md": "",
            "element-deps": "",
            "element-provides": "",
            "__init__.py": "",
            "thing.pyc": "",
            ".hidden": "",
            ".git/config": "",
            "tests/test_a.py": "",
            "test-elements/one/element-deps": "",
            "__pycache__/x.pyc": "",
            "bin/__pycache__/x.pyc": "",
            "bin/x.pyc": "",
            "install.d/.hidden": "",
            "package-installs.yaml": "",
            "svc-map": "",
            "block-device-default.yaml": "",
            "own-data.conf": "",
        },
    )
    assert list(merge([element]).files) == [
        "block-device-default.yaml",
        "own-data.conf",
        "package-installs.yaml",
        "svc-map",
    ]


def test_hidden_files_further_down_are_kept(tmp_path: Path) -> None:
    element = make_element(tmp_path, "a", {"static/root/.ssh/authorized_keys": "", "static/.top": ""})
    assert list(merge([element]).files) == ["static/root/.ssh/authorized_keys"]


def test_links_stay_links_and_a_linked_directory_counts_as_one(tmp_path: Path) -> None:
    element = make_element(tmp_path, "a", {"static/usr/lib/x": "", "data": ""}, scripts=["real.d/10-a"])
    (element.path / "static/usr/lib64").symlink_to("lib")
    (element.path / "install.d").symlink_to("real.d")
    (element.path / "other-data").symlink_to("data")
    (element.path / "dangling").symlink_to("nowhere")
    tree = merge([element])
    assert "static/usr/lib64/x" not in tree.files
    assert tree.files["static/usr/lib64"].path.is_symlink()
    assert tree.files["other-data"].path.is_symlink()
    assert "dangling" not in tree.files
    assert [file.name for file in scripts(tree, "install.d")] == ["install.d/10-a"]


def test_empty_directories_and_their_modes_are_kept(tmp_path: Path) -> None:
    element = make_element(tmp_path, "a")
    (element.path / "static/var/empty").mkdir(parents=True)
    (element.path / "static/var/empty").chmod(0o700)
    assert merge([element]).directories["static/var/empty"] == 0o700


# --- duplicates


@pytest.mark.parametrize("path", ["install.d/10-x", "environment.d/10-x", "bin/x", "binary-deps.d/x", "own/x"])
def test_the_same_hook_in_two_elements_is_an_error_that_names_both(tmp_path: Path, path: str) -> None:
    a = make_element(tmp_path, "first", {path: "same"})
    b = make_element(tmp_path, "second", {path: "same"})
    with pytest.raises(ElementError, match=f"duplicated hook {path}: the elements first and second") as caught:
        merge([a, b])
    assert caught.value.where.file == str(b.path / path)


def test_of_nested_duplicates_the_later_element_wins_with_a_warning(tmp_path: Path) -> None:
    a = make_element(tmp_path, "first", {"static/etc/conf": "one"})
    b = make_element(tmp_path, "second", {"static/etc/conf": "two"})
    tree = merge([a, b])
    assert tree.files["static/etc/conf"].element == "second"
    (note,) = tree.notes
    assert note.level == "warning"
    place = f"{b.path}/static/etc/conf:1, element second"
    assert note.text == f"{place}: static/etc/conf replaces that of element first"
    assert merge([b, a]).files["static/etc/conf"].element == "first"


def test_identical_nested_duplicates_are_silent(tmp_path: Path) -> None:
    a = make_element(tmp_path, "first", {"static/etc/conf": "one"})
    b = make_element(tmp_path, "second", {"static/etc/conf": "one"})
    for element in (a, b):
        (element.path / "static/etc/link").symlink_to("conf")
    assert not merge([a, b]).notes
    (b.path / "static/etc/conf").chmod(0o755)
    assert len(merge([a, b]).notes) == 1
    (b.path / "static/etc/link").unlink()
    (b.path / "static/etc/link").symlink_to("./conf")
    assert len(merge([a, b]).notes) == 2


def test_of_top_level_duplicates_the_later_wins_and_only_the_unusual_ones_are_told(tmp_path: Path) -> None:
    files = ["pkg-map", "svc-map", "package-installs.yaml", "block-device-amd64.yaml", "source-repository-x", "data"]
    a = make_element(tmp_path, "first", dict.fromkeys(files, "one"))
    b = make_element(tmp_path, "second", dict.fromkeys(files, "two"))
    tree = merge([a, b])
    assert {file.element for file in tree.files.values()} == {"second"}
    assert sorted(note.text.partition(": ")[2].split()[0] for note in tree.notes) == ["data", "source-repository-x"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("path", ["static/etc", "static", "static/a/b"])
def test_a_directory_here_and_a_file_there_is_an_error_that_names_both(
    tmp_path: Path, path: str, order: tuple[int, int]
) -> None:
    elements = [make_element(tmp_path, "first", {path: ""}), make_element(tmp_path, "second", {f"{path}/x": ""})]
    with pytest.raises(ElementError, match=f"{path} is a directory") as caught:
        merge([elements[number] for number in order])
    assert "first" in caught.value.message
    assert "second" in caught.value.message


def test_an_element_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ElementError, match="gone cannot be read") as caught:
        merge([Element("gone", tmp_path / "gone")])
    assert caught.value.where.element == "gone"


# --- what a phase runs


def test_scripts_run_by_number_then_by_bytes_and_without_number_first(tmp_path: Path) -> None:
    names = ["100-x", "9-x", "20-b", "20-a", "10-x", "none", "Anone", "020-c", "0-zero", "9-X", "50"]
    assert ordered(tmp_path, *names) == [
        "0-zero",
        "Anone",
        "none",
        "9-X",
        "9-x",
        "10-x",
        "020-c",
        "20-a",
        "20-b",
        "50",
        "100-x",
    ]


def test_names_with_other_characters_do_not_run_and_the_user_can_be_told(tmp_path: Path) -> None:
    a = make_element(tmp_path, "a", {"install.d/20-data": ""}, scripts=["install.d/10-x.sh", "install.d/10-x"])
    tree = merge([a])
    assert [file.name for file in scripts(tree, "install.d")] == ["install.d/10-x"]
    dotted, data = ignored(tree, "install.d")
    assert "10-x.sh" in dotted.text
    assert "name" in dotted.text
    assert "20-data" in data.text
    assert "not executable" in data.text


def test_the_pattern_of_script_names_can_be_widened(tmp_path: Path) -> None:
    a = make_element(tmp_path, "a", scripts=["install.d/10-x.sh"])
    assert len(scripts(merge([a]), "install.d", name_pattern=re.compile(r"[0-9a-z.-]+"))) == 1


def test_only_files_right_in_the_phase_directory_run(tmp_path: Path) -> None:
    a = make_element(
        tmp_path, "a", scripts=["install.d/a-source-install/10-x", "install.d-more/10-y", "install.d/30-z"]
    )
    tree = merge([a])
    assert [file.name for file in scripts(tree, "install.d")] == ["install.d/30-z"]
    assert not ignored(tree, "install.d")


def test_a_link_runs_when_it_leads_to_an_executable_in_the_merged_tree(tmp_path: Path) -> None:
    a = make_element(tmp_path, "a", {"install.d/keep": "", "data": ""})
    b = make_element(tmp_path, "b", scripts=["bin/tool"])
    install = a.path / "install.d"
    (install / "10-tool").symlink_to("../bin/tool")  # stands in b only
    (install / "20-data").symlink_to("../data")
    (install / "30-dangling").symlink_to("../nowhere")
    (install / "40-directory").symlink_to("../install.d")
    (install / "50-absolute").symlink_to("/bin/sh")
    (install / "60-chain").symlink_to("10-tool")
    names = [file.name for file in scripts(merge([a, b]), "install.d")]
    assert names == ["install.d/10-tool", "install.d/50-absolute", "install.d/60-chain"]


@settings(max_examples=50, deadline=None)
@given(names=st.lists(st.from_regex(r"[0-9A-Za-z_-]{1,8}", fullmatch=True).filter(lambda n: n != "-"), unique=True))
def test_the_order_is_that_of_sort_n_in_the_c_locale(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ours = ordered(Path(scratch), *names)
    sorting = subprocess.run(
        ["sort", "-n"],
        input="".join(f"{name}\n" for name in names),
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ours == sorting.stdout.splitlines()


# --- what a phase sees


def test_the_phases_stand_in_their_order_on_their_side() -> None:
    assert [(phase.name, phase.where) for phase in PHASES] == [
        ("root", "outside"),
        ("extra-data", "outside"),
        ("pre-install", "inside"),
        ("install", "inside"),
        ("post-install", "inside"),
        ("post-root", "outside"),
        ("block-device", "outside"),
        ("pre-finalise", "outside"),
        ("finalise", "inside"),
        ("cleanup", "outside"),
    ]


def test_a_phase_sees_its_own_directory_and_all_that_belongs_to_none() -> None:
    assert sees("install.d", "install.d/10-x")
    assert sees("install.d", "bin/tool")
    assert sees("install.d", "environment.d/10-x")
    assert sees("install.d", "pkg-map")
    assert sees("install.d", "static/cleanup.d/x")
    assert not sees("install.d", "cleanup.d/10-x")
    assert not sees("install.d", "cleanup.d")
    assert all(sees("extra-data.d", phase.directory) for phase in PHASES)


@pytest.fixture
def element(tmp_path: Path) -> Element:
    return make_element(tmp_path, "a", {"static/x": "x", "pkg-map": "{}"}, scripts=["install.d/10-a", "cleanup.d/10-b"])


def digests(element: Element) -> dict[str, str]:
    tree = merge([element])
    return {phase.directory: digest_of(tree, phase.directory) for phase in PHASES}


def test_visible_files_are_those_that_the_digest_covers(element: Element) -> None:
    assert [file.name for file in visible(merge([element]), "install.d")] == ["install.d/10-a", "pkg-map", "static/x"]


def changed_phases(element: Element, before: dict[str, str]) -> set[str]:
    return {phase for phase, value in digests(element).items() if value != before[phase]}


def test_an_edited_script_changes_the_digest_of_its_phase_and_of_extra_data_only(element: Element) -> None:
    before = digests(element)
    with (element.path / "cleanup.d/10-b").open("a") as file:
        file.write("# more\n")
    assert changed_phases(element, before) == {"cleanup.d", "extra-data.d"}


@pytest.mark.parametrize("edit", ["content", "mode", "name", "link", "directory"])
def test_an_edit_of_shared_files_changes_every_digest(element: Element, edit: str) -> None:
    before = digests(element)
    file = element.path / "static/x"
    if edit == "content":
        file.write_text("y")
    elif edit == "mode":
        file.chmod(0o755)
    elif edit == "name":
        file.rename(file.with_name("y"))
    elif edit == "link":
        file.unlink()
        file.symlink_to("y")
    else:
        (element.path / "static/empty").mkdir()
    assert changed_phases(element, before) == set(before)


def test_a_linked_files_digest_is_that_of_the_link(tmp_path: Path) -> None:
    element = make_element(tmp_path, "a", {"bin/x": "one"})
    (element.path / "bin/link").symlink_to("x")
    before = digest(merge([element]).files["bin/link"])
    (element.path / "bin/x").write_text("two!")
    assert digest(merge([element]).files["bin/link"]) == before


def test_place_time_and_umask_do_not_change_a_digest(element: Element, tmp_path: Path) -> None:
    before = digests(element)
    shutil.copytree(element.path, tmp_path / "elsewhere" / "a")
    copy = Element("a", tmp_path / "elsewhere" / "a")
    for path in [copy.path, *copy.path.rglob("*")]:
        os.utime(path, (1, 1))
        path.chmod(path.stat().st_mode | 0o020)  # a checkout with umask 002
    assert digests(copy) == before


# --- on disk


def test_a_written_tree_reads_back_as_it_was_merged(tmp_path: Path) -> None:
    a = make_element(tmp_path, "a", {"static/etc/x": "x", "pkg-map": "{}"}, scripts=["install.d/10-a"])
    (a.path / "static/empty").mkdir()
    (a.path / "static/etc").chmod(0o500)
    (a.path / "static/link").symlink_to("etc/x")
    (a.path / "install.d/20-link").symlink_to("10-a")
    (a.path / "pkg-map").chmod(0o664)
    os.utime(a.path / "pkg-map", (1000, 1000))
    tree = merge([a])
    hooks = tmp_path / "hooks"
    write_tree(tree, hooks)
    write_tree(tree, hooks)  # replaces what is there
    again = read_tree(hooks)
    assert list(again.files) == list(tree.files)
    assert again.directories == tree.directories
    assert [digest(file) for file in again.files.values()] == [digest(file) for file in tree.files.values()]
    assert [f.name for f in scripts(again, "install.d")] == [f.name for f in scripts(tree, "install.d")]
    assert (hooks / "pkg-map").stat().st_mtime == 1000
    assert (hooks / "pkg-map").stat().st_mode & 0o777 == 0o644
    (hooks / "static/etc").chmod(0o700)
    (a.path / "static/etc").chmod(0o700)


def test_reading_a_tree_back_takes_hidden_files_and_later_additions(tmp_path: Path) -> None:
    (tmp_path / "install.d").mkdir()
    (tmp_path / "install.d" / "50-new").write_text("#!/bin/sh\n")
    (tmp_path / "install.d" / "50-new").chmod(0o755)
    (tmp_path / "install.d" / ".state").touch()
    tree = read_tree(tmp_path)
    assert list(tree.files) == ["install.d/.state", "install.d/50-new"]
    assert [file.name for file in scripts(tree, "install.d")] == ["install.d/50-new"]


@settings(max_examples=30, deadline=None)
@given(
    owners=st.dictionaries(
        st.sampled_from([f"{folder}/{name}" for folder in ("install.d", "static/etc", "bin") for name in "abcd"]),
        st.sampled_from(["one", "two", "three"]),
        min_size=1,
    ),
    seed=st.integers(),
)
def test_the_merge_does_not_depend_on_the_order_of_directory_entries(owners: dict[str, str], seed: int) -> None:
    paths = list(owners)
    with tempfile.TemporaryDirectory() as scratch:
        trees = []
        for attempt in ("first", "second"):
            random.Random(seed).shuffle(paths)
            elements = {name: make_element(Path(scratch) / attempt, name) for name in ("one", "two", "three")}
            for path in paths:
                file = elements[owners[path]].path / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(path)
            trees.append(merge(list(elements.values())))
            paths.reverse()
        first, second = trees
        assert list(first.files) == list(second.files) == sorted(owners)
        assert {name: file.element for name, file in first.files.items()} == owners
        assert digest_of(first, "install.d") == digest_of(second, "install.d")
