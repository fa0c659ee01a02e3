"""Builds that share a store: at once, beside a collection, with a damaged store, and with one they may not write."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from tests.people import left_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from subprocess import CompletedProcess

    from tests.people import Person

pytestmark = pytest.mark.build

AT_ONCE = 4
NONE: Mapping[str, str] = MappingProxyType({})
ROOT = """#!/bin/bash
set -eu
mkdir -p $TARGET_ROOT/{etc,proc,sys,dev,tmp,root,opt,var/log}
for number in {1..300}; do echo $number > $TARGET_ROOT/opt/file-$number; done
install -o 33 -g 44 -m 600 /dev/null $TARGET_ROOT/opt/somebodys
"""


@pytest.fixture(params=["ourselves", "ordinary_user"])
def person(request: pytest.FixtureRequest) -> Person:
    found: Person = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(person: Person) -> Path:
    return person.directory("store")


class Recipe:
    """An operating system of a few steps that nobody built before; `more` names a step of its own among them."""

    def __init__(self, person: Person, place: Path, mark: str, more: str = "") -> None:
        self._person = person
        self._place = place
        self.name = f"os-{more or 'common'}"
        folder = place / "elements" / self.name
        steps = {
            "10-tree": f"{ROOT}# {mark}\n",
            "20-count": f"#!/bin/bash\n# {mark}\nhead -c 4000000 /dev/urandom > $TARGET_ROOT/opt/random\n",
            "30-last": f"#!/bin/bash\n# {mark}\nrm -r $TARGET_ROOT/var/log\nln -s ../x $TARGET_ROOT/etc/link\n",
        }
        if more:
            steps["25-own"] = f"#!/bin/bash\n# {mark} {more}\necho {more} > $TARGET_ROOT/etc/own\n"
        (folder / "root.d").mkdir(parents=True)
        (folder / "element-provides").write_text("operating-system\n")
        for name, text in steps.items():
            path = folder / "root.d" / name
            path.write_text(text)
            path.chmod(0o755)
        for path in (place / "elements", *(place / "elements").rglob("*")):
            os.chown(path, person.uid, person.gid)

    def build(self, number: int = 0, variables: Mapping[str, str] = NONE) -> CompletedProcess[str]:
        folder = self._place / f"out-{self.name}-{number}"
        folder.mkdir(exist_ok=True)
        os.chown(folder, self._person.uid, self._person.gid)
        env = self._person.environment(ELEMENTS_PATH=str(self._place / "elements"), **variables)
        return self._person.dibble(
            "build", "-n", "-t", "tar", "-o", "image", self.name, cwd=folder, env=env, timeout=600
        )

    def image(self, number: int = 0) -> bytes:
        return (self._place / f"out-{self.name}-{number}" / "image.tar").read_bytes()


def ran(said: str) -> list[str]:
    return [line.split("Running ")[1].split(" ")[0] for line in said.splitlines() if "Running " in line]


def cached(said: str) -> list[str]:
    return [line.split("Cached ")[1] for line in said.splitlines() if "Cached " in line]


def cache(
    person: Person, *words: str, check: bool = True, variables: Mapping[str, str] = NONE
) -> CompletedProcess[str]:
    return person.dibble("cache", *words, env=person.environment(**variables), check=check)


def at_once(*calls: Callable[[], CompletedProcess[str]]) -> list[str]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [done.stdout for done in pool.map(lambda call: call(), calls)]


def test_four_builds_of_one_recipe_at_once_run_each_step_once(person: Person, place: Path) -> None:
    recipe = Recipe(person, place, str(uuid.uuid4()))
    said = at_once(*(partial(recipe.build, number) for number in range(AT_ONCE)))
    steps = [step for text in said for step in ran(text)]
    assert sorted(steps) == sorted(set(steps)), "no step has run twice"
    assert {"root.d/10-tree", "root.d/20-count", "root.d/30-last"} <= set(steps)
    images = {recipe.image(number) for number in range(AT_ONCE)}
    assert len(images) == 1, "all have the same random numbers: one made them"
    assert left_sessions(person) == []


def test_four_builds_of_different_recipes_at_once_share_what_they_have_in_common(person: Person, place: Path) -> None:
    mark = str(uuid.uuid4())
    recipes = [Recipe(person, place, mark, more) for more in "abcd"]
    said = at_once(*(recipe.build for recipe in recipes))
    steps = [step for text in said for step in ran(text)]
    assert steps.count("root.d/10-tree") == 1
    assert steps.count("root.d/20-count") == 1
    assert steps.count("root.d/25-own") == AT_ONCE
    assert len({recipe.image() for recipe in recipes}) == AT_ONCE
    assert left_sessions(person) == []


def test_who_waits_for_another_build_says_for_whom(person: Person, place: Path) -> None:
    """The first build stands still in a step until the second one has said that it waits."""
    recipe = Recipe(person, place, str(uuid.uuid4()))
    script = place / "elements" / recipe.name / "root.d/20-count"
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        script.write_text(f"#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\nread -u 3 word\n")
        first = stack.enter_context(started(person, place / "first", recipe.name, place / "elements"))
        step, _ = server.accept()
        second = stack.enter_context(started(person, place / "second", recipe.name, place / "elements"))
        waiting = await_line(second, "is being made by another build")
        assert f"root.d/20-count is being made by another build (process {first.pid} (" in waiting
        step.sendall(b"on\n")
        rest = [process.communicate(timeout=120)[0] for process in (first, second)]
        assert [process.returncode for process in (first, second)] == [0, 0]
        assert "Cached root.d/20-count" in rest[1]
        step.close()


@contextlib.contextmanager
def started(person: Person, folder: Path, name: str, elements: Path) -> Iterator[subprocess.Popen[str]]:
    """A build that runs in the background, and is killed when it is not done at the end of the block."""
    folder.mkdir()
    os.chown(folder, person.uid, person.gid)
    process = subprocess.Popen(
        [person.checkout / "dibble", "build", "-n", "-t", "tar", "-o", "image", name],
        cwd=folder, env=person.environment(ELEMENTS_PATH=str(elements)),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        user=None if os.getuid() == person.uid else person.uid,
        group=None if os.getuid() == person.uid else person.gid,
        extra_groups=None if os.getuid() == person.uid else [],
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def await_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the build ended and never said: {text}")


def test_a_collection_while_builds_run_takes_nothing_from_them(
    person: Person, place: Path, own: dict[str, str]
) -> None:
    mark = str(uuid.uuid4())
    recipes = [Recipe(person, place, mark, more) for more in "ab"]
    stop = threading.Event()
    collected = []

    def collect() -> None:
        while not stop.is_set():
            done = cache(person, "gc", "--max-size", "0", "--json", check=False, variables=own)
            collected.append((done.returncode, done.stdout, done.stderr))

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for _ in range(3):
            at_once(*(partial(recipe.build, 0, own) for recipe in recipes))
    finally:
        stop.set()
        collector.join()
    assert all(status == 0 and "Traceback" not in errors for status, _, errors in collected), collected[-1]
    assert any(json.loads(said)["removed"] for _, said, _ in collected), "it has had something to do"
    assert "no faults" in cache(person, "verify", variables=own).stdout
    cache(person, "gc", "--max-size", "0", variables=own)
    left = json.loads(cache(person, "list", "--json", variables=own).stdout)["entries"]
    assert [entry["name"] for entry in left if entry["kind"] != "facts"] == []
    assert list((place / "cache/tmp").iterdir()) == []


@pytest.fixture
def own(person: Person, place: Path) -> Iterator[dict[str, str]]:
    """The variables for a store of the test's own, small because builds take the host's tools."""
    store = place / "cache"
    store.mkdir()
    os.chown(store, person.uid, person.gid)
    yield {"DIB_IMAGE_CACHE": str(store), "DIBBLE_TOOLS": "host"}
    remove(person, store)


def remove(person: Person, store: Path) -> None:
    """Remove a store; its files may have subordinate ids."""
    person.dibble("cache", "clear", "--all", env=person.environment(DIB_IMAGE_CACHE=str(store)))
    shutil.rmtree(store, ignore_errors=True)


def layer_of(person: Person, step: str, own: dict[str, str]) -> Path:
    """The newest layer of a step."""
    entries = json.loads(cache(person, "list", "--json", variables=own).stdout)["entries"]
    newest = min((entry for entry in entries if entry["what"] == step), key=lambda entry: entry["age"])
    return Path(own["DIB_IMAGE_CACHE"], newest["name"])


def test_a_layer_without_its_tree_is_told_once_and_made_again(person: Person, place: Path, own: dict[str, str]) -> None:
    recipe = Recipe(person, place, str(uuid.uuid4()))
    recipe.build(0, own)
    layer = layer_of(person, "root.d/20-count", own)
    person.run(["mv", str(layer / "0" / "mnt"), str(layer / "0" / "mmt")])
    said = recipe.build(0, own)
    assert said.stdout.count(f"the layer {layer.name} in the cache has lost 0/mnt; its step is run again") == 1
    assert "root.d/10-tree" in cached(said.stdout)
    assert "root.d/20-count" in ran(said.stdout)
    again = recipe.build(0, own)
    assert "is run again" not in again.stdout
    assert ran(again.stdout) == []


def test_a_changed_file_is_found_named_and_repaired(person: Person, place: Path, own: dict[str, str]) -> None:
    recipe = Recipe(person, place, str(uuid.uuid4()))
    recipe.build(0, own)
    assert "no faults" in cache(person, "verify", variables=own).stdout
    layer = layer_of(person, "root.d/20-count", own)
    before = recipe.image()
    spoilt = layer / "0/mnt/opt/random"
    status = spoilt.stat()
    person.run(["chmod", "u+w", str(spoilt)])
    data = bytearray(spoilt.read_bytes())
    data[1000] ^= 1
    spoilt.write_bytes(data)
    os.utime(spoilt, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = cache(person, "verify", check=False, variables=own)
    assert found.returncode == 1
    assert f"damaged: layers/{layer.name}, 0/mnt/opt/random has other content" in found.stdout
    repaired = cache(person, "verify", "--repair", variables=own)
    assert "removed" in repaired.stdout
    assert "no faults" in cache(person, "verify", variables=own).stdout
    said = recipe.build(0, own).stdout
    assert "root.d/10-tree" in cached(said)
    assert {"root.d/20-count", "root.d/30-last"} <= set(ran(said))
    assert recipe.image() != before, "the random numbers are new ones"


@pytest.fixture
def read_only(ourselves: Person) -> Iterator[Path]:
    """The cache of the tests, mounted read-only."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    place = Path("/var/tmp/dibble-test-read-only")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", ourselves.cache, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


def test_a_read_only_store_is_read_and_what_is_new_goes_elsewhere(ourselves: Person, read_only: Path) -> None:
    place = ourselves.directory("store")
    (place / "tmp").mkdir()
    variables = {"DIB_IMAGE_CACHE": str(read_only), "TMP_DIR": str(place / "tmp")}
    recipe = Recipe(ourselves, place, str(uuid.uuid4()))
    recipe.build()
    said = recipe.build(0, variables).stdout
    assert ran(said) == [], "everything was there"
    assert said.count("cannot be written (Read-only file system)") == 1
    more = place / "elements" / recipe.name / "root.d/40-more"
    more.write_text("#!/bin/bash\necho more > $TARGET_ROOT/etc/more\n")
    more.chmod(0o755)
    said = recipe.build(0, variables).stdout
    assert "root.d/20-count" in cached(said)
    assert "root.d/40-more" in ran(said)
    assert ran(recipe.build(0, variables).stdout) == []
    assert "root.d/40-more" in ran(recipe.build().stdout), "nothing of it went to the read-only store"


def test_an_ordinary_user_leaves_the_store_of_root_alone(ordinary_user: Person, ourselves: Person) -> None:
    if os.getuid() != 0:
        pytest.skip("there are two users only for root")
    place = ordinary_user.directory("store")
    store = Path("/var/tmp/dibble-test-of-root")
    shutil.rmtree(store, ignore_errors=True)
    (store / "layers").mkdir(parents=True)
    (place / "tmp").mkdir()
    os.chown(place / "tmp", ordinary_user.uid, ordinary_user.gid)
    recipe = Recipe(ordinary_user, place, str(uuid.uuid4()))
    try:
        done = recipe.build(0, {"DIB_IMAGE_CACHE": str(store), "TMP_DIR": str(place / "tmp"), "DIBBLE_TOOLS": "host"})
        assert done.stdout.count(f"the cache {store} belongs to root; using {place}/tmp/") == 1
        assert sorted(path.name for path in store.iterdir()) == ["layers"]
    finally:
        shutil.rmtree(store)
        for used in (place / "tmp").iterdir():
            remove(ordinary_user, used)
