"""`dibble elements test` on elements that build in a second."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from tests.people import Person

pytestmark = pytest.mark.build


@pytest.fixture
def small(ordinary_user: Person) -> SmallElements:
    return SmallElements(ordinary_user, ordinary_user.directory("elements-test"))


def test_a_new_element_builds_and_passes_its_test(ordinary_user: Person) -> None:
    place = ordinary_user.directory("elements-new")
    ordinary_user.dibble("elements", "new", "web-server", cwd=place)
    env = ordinary_user.environment(ELEMENTS_PATH="elements")
    done = ordinary_user.dibble("elements", "test", cwd=place, env=env, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("ok      web-server/build-succeeds")


def verdicts(small: SmallElements, *words: str, status: int = 0) -> dict[str, dict[str, Any]]:
    done = small.run("elements", "test", "--json", "--system", "small", *words, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return {row["test"]: row for row in json.loads(done.stdout)}


def test_builds_pass_that_end_as_their_test_says(small: SmallElements) -> None:
    small.script("web/install.d/10-web", "echo hello > /etc/web")
    tests = {
        "works": "grep hello /etc/web",
        "breaks": "echo what went wrong; exit 7",
        "breaks-as-it-should": "touch /tmp/dib-test-should-fail; exit 7",
        "works-as-it-should-not": "touch /tmp/dib-test-should-fail",
    }
    for name, script in tests.items():
        small.script(f"web/test-elements/{name}/post-install.d/90-{name}", script)
    before = {path.name for path in small.place.iterdir()}
    found = verdicts(small, status=1)
    assert {name: row["passed"] for name, row in found.items()} == {
        "web/works": True,
        "web/breaks": False,
        "web/breaks-as-it-should": True,
        "web/works-as-it-should-not": False,
    }
    assert "status 7" in found["web/breaks"]["problem"]
    assert any("what went wrong" in line for line in found["web/breaks"]["output"])
    assert {path.name for path in small.place.iterdir()} == before
    again = verdicts(small, "web/works-as-it-should-not", status=1)
    assert not again["web/works-as-it-should-not"]["passed"], "it comes from the cache and is the same"
    done = small.run("elements", "test", "--system", "small", "web/works", "web/breaks", check=False)
    assert [line.split()[:2] for line in done.stdout.splitlines() if line[0] != " "] == [
        ["FAILED", "web/breaks"],
        ["ok", "web/works"],
    ]


def test_the_formats_of_a_test_are_made(small: SmallElements) -> None:
    small.script("web/install.d/10-web", "echo hello > /etc/web")
    small.write("web/test-elements/none/test-output-formats", "no-such-format\n")
    found = verdicts(small, status=1)
    assert any("no-such-format" in line for line in found["web/none"]["output"])
