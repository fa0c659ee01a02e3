"""dibble in one file: it starts where no Python is, by its own C library, and builds the same bytes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

# What the file asks of a machine; the last two are for namespaces of an ordinary user (user_namespaces(7)).
PROGRAMS = ("sh", "tar", "gzip", "tail", "mkdir", "mv", "rm", "newuidmap", "newgidmap")
LOOK = "import sys; sys.stdout.write(open('/proc/self/maps').read())"


@pytest.fixture(scope="module")
def place(ordinary_user: Person) -> Path:
    return ordinary_user.directory("executable")


@pytest.fixture(scope="module")
def executable(ordinary_user: Person, place: Path) -> Path:
    file = place / "dibble.run"
    done = ordinary_user.dibble("tools", "executable", file, cwd=place)
    assert done.stdout.startswith(f"{file}: ")
    return file


def few_programs(place: Path) -> Path:
    folder = place / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def test_it_builds_where_no_python_is(ordinary_user: Person, place: Path, executable: Path) -> None:
    elements = SmallElements(ordinary_user, place)
    env = {**elements.environment(), "PATH": str(few_programs(place)), "XDG_CACHE_HOME": str(place / "caches")}
    elements.run("build", "-n", "-t", "tar", "-o", "image", "small")
    (place / "image.tar").rename(place / "expected.tar")
    for more in (["--refresh", "all"], []):
        ordinary_user.run([executable, "build", *more, "-n", "-t", "tar", "-o", "image", "small"], cwd=place, env=env)
        assert (place / "image.tar").read_bytes() == (place / "expected.tar").read_bytes()
    (unpacked,) = (place / "caches/dibble-executable").iterdir()
    maps = ordinary_user.run([unpacked / "bin/python", "-c", "import pydantic, zstandard; " + LOOK]).stdout
    mapped = {line.split(maxsplit=5)[5] for line in maps.splitlines() if ".so" in line}
    assert any("pydantic_core" in path for path in mapped)
    assert {path for path in mapped if not path.startswith(str(unpacked))} == set(), "libraries of the machine"


def test_a_place_that_it_cannot_unpack_to_is_told(ordinary_user: Person, place: Path, executable: Path) -> None:
    env = ordinary_user.environment(DIBBLE_UNPACKED="/proc/nowhere")
    done = ordinary_user.run([executable, "--version"], env=env, check=False)
    assert done.returncode == 1
    assert "dibble: cannot unpack itself to /proc/nowhere/" in done.stderr
    assert "hint: is there room? DIBBLE_UNPACKED names another directory" in done.stderr
