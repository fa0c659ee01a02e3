"""Of any set of elements: what a result depends on is in its key, and what cannot matter is not."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dibble.elements.phases import PHASES
from dibble.events import Events
from dibble.plan.key import VOLATILE
from dibble.recipe.environment import is_host_only
from dibble.recipe.load import request_of
from dibble.recipe.merge import Host
from dibble.run.planner import make_plan
from dibble.run.prepare import CATALOGUE, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.plan.plan import Plan

pytestmark = pytest.mark.unit

DIRECTORIES = [phase.directory for phase in PHASES]
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.sampled_from(["echo one", "echo two", "cat $TMP_HOOKS_PATH/x", "ls $(dirname $0)", "echo $MINE", "tool"])


@dataclass(frozen=True)
class Tree:
    """Files of an element by path → (text, whether it can be executed)."""

    files: Mapping[str, tuple[str, bool]]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    files: dict[str, tuple[str, bool]] = {}
    for phase in draw(st.lists(st.sampled_from(DIRECTORIES), min_size=1, max_size=4, unique=True)):
        for name in draw(st.lists(st.sampled_from(["10-a", "20-b", "30-c"]), min_size=1, max_size=3, unique=True)):
            files[f"{phase}/{name}"] = (f"#!/bin/bash\n{draw(TEXTS)}\n", True)
        if draw(st.booleans()):
            files[f"{phase}/data.txt"] = (draw(TEXTS), False)
    for name in draw(st.lists(st.sampled_from(["bin/tool", "static/etc/x", "pkg-map", "README.rst"]), unique=True)):
        text = "{}" if name == "pkg-map" else draw(TEXTS)
        files[name] = (text, name.startswith("bin/"))
    if draw(st.booleans()):
        files["environment.d/10-env"] = ("export MINE=1\n", False)
    return Tree(files)


def written(place: Path, tree: Tree, order: list[str] | None = None) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for name in order or sorted(tree.files):
        text, executable = tree.files[name]
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if executable else 0o644)
    (place / "element-provides").write_text("operating-system\n")


def plan(place: Path, **environment: str) -> Plan:
    """The plan of an image from the element at `place`; the store stays empty."""
    host = Host("x86_64", place.parent / "home", place.parent, CATALOGUE / "elements")
    environ = {"ELEMENTS_PATH": str(place.parent), "DIB_IMAGE_CACHE": str(place.parent / "cache"), **environment}
    request = request_of((place.name,), {"skip_base": True, "outputs": ("tar",)}, environ, host=host)
    return make_plan(prepare(request, Events())).plan


def own_parts(made: Plan) -> dict[str, dict[str, str]]:
    """The parts of each step's key, less what the steps before it decide."""
    return {
        planned.step.id: {name: value for name, value in planned.key.parts.items() if name != "tree"}
        for planned in made.steps
    }


def keys(made: Plan) -> list[tuple[str, str]]:
    return [(planned.step.id, planned.key.value) for planned in made.steps]


@SETTINGS
@given(tree=trees(), data=st.data())
def test_a_change_of_a_file_changes_the_key_of_every_step_that_is_shown_it(
    tmp_path: Path, tree: Tree, data: st.DataObject
) -> None:
    place = tmp_path / "os"
    written(place, tree)
    before = own_parts(plan(place))
    name = data.draw(st.sampled_from(sorted(set(tree.files) - {"pkg-map"})))
    text, executable = tree.files[name]
    written(place, Tree({**tree.files, name: (text + "# more\n", executable)}))
    after = own_parts(plan(place))
    assert set(before) == set(after)
    for step, parts in before.items():
        shown = parts.get(f"file {name}") is not None or step == name
        assert (parts != after[step]) == shown, (step, name)


@SETTINGS
@given(tree=trees(), data=st.data())
def test_whatever_runs_behind_a_changed_step_has_another_key(tmp_path: Path, tree: Tree, data: st.DataObject) -> None:
    scripts = [name for name, (_, executable) in tree.files.items() if executable and name.split("/")[0] in DIRECTORIES]
    place = tmp_path / "os"
    written(place, tree)
    before = keys(plan(place))
    name = data.draw(st.sampled_from(sorted(scripts)))
    written(place, Tree({**tree.files, name: (tree.files[name][0] + "true\n", True)}))
    after = keys(plan(place))
    at = [step for step, _ in before].index(name)
    assert all(one != two for one, two in zip(before[at:], after[at:], strict=True))


@SETTINGS
@given(tree=trees(), data=st.data())
def test_the_run_bit_counts_as_the_content_does(tmp_path: Path, tree: Tree, data: st.DataObject) -> None:
    names = [name for name in tree.files if name.startswith(("bin/", "static/")) or name.endswith(".txt")]
    assume(names)
    place = tmp_path / "os"
    written(place, tree)
    before = own_parts(plan(place))
    name = data.draw(st.sampled_from(sorted(names)))
    path = place / name
    path.chmod(path.stat().st_mode ^ (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))
    after = own_parts(plan(place))
    for step, parts in before.items():
        assert (parts != after[step]) == (f"file {name}" in parts), (step, name)


@SETTINGS
@given(tree=trees(), data=st.data())
def test_order_times_and_place_of_the_files_do_not_matter(tmp_path: Path, tree: Tree, data: st.DataObject) -> None:
    written(tmp_path / "one" / "os", tree)
    written(tmp_path / "two" / "os", tree, data.draw(st.permutations(sorted(tree.files))))
    for path in (tmp_path / "two").rglob("*"):
        os.utime(path, (1, 1))
    assert keys(plan(tmp_path / "one" / "os")) == keys(plan(tmp_path / "two" / "os"))


@SETTINGS
@given(tree=trees(), readme=st.text(max_size=40))
def test_a_readme_does_not_matter(tmp_path: Path, tree: Tree, readme: str) -> None:
    place = tmp_path / "os"
    written(place, tree)
    before = keys(plan(place))
    (place / "README.rst").write_text(readme)
    (place / "tests").mkdir(exist_ok=True)
    (place / "tests/test_x.py").write_text(readme)
    assert keys(plan(place)) == before


@SETTINGS
@given(tree=trees(), name=st.sampled_from(["MINE", "DIB_RELEASE", "FOO"]), value=st.text("abc", min_size=1, max_size=3))
def test_a_variable_changes_every_key_of_a_script(tmp_path: Path, tree: Tree, name: str, value: str) -> None:
    place = tmp_path / "os"
    written(place, tree)
    before, after = own_parts(plan(place)), own_parts(plan(place, **{name: value}))
    for step, parts in before.items():
        assert (parts != after[step]) == (not step.startswith("engine/")), step


@SETTINGS
@given(tree=trees(), name=st.sampled_from(sorted(VOLATILE - {"ELEMENTS_PATH", "DIB_IMAGE_CACHE", "CLEAR_ENV"})))
def test_a_volatile_variable_changes_no_key(tmp_path: Path, tree: Tree, name: str) -> None:
    assume(not is_host_only(name))
    values = {"DIB_MIN_TMPFS": "3", "DIB_NO_TMPFS": "1", "DIB_DEBUG_TRACE": "1", "IMAGE_TYPE": "raw", "break": ""}
    place = tmp_path / "os"
    written(place, tree)
    assert keys(plan(place)) == keys(plan(place, **{name: values.get(name, "1")}))
