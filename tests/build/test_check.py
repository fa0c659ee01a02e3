"""`dibble check` on a real tree: packages that nobody asked for or needs, by their size, with a limit for pipelines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.people import Person

pytestmark = pytest.mark.build
CONTAINER = ("--environment", "docker", "-p", "man-db", "debian-minimal")


def test_what_nobody_asked_for_is_found_and_what_was_asked_for_is_not(ordinary_user: Person) -> None:
    place = ordinary_user.directory("check")
    done = ordinary_user.dibble("check", "--json", *CONTAINER, cwd=place, env=ordinary_user.environment())
    report = json.loads(done.stdout)
    could_go = {row["package"]: row for row in report["unneeded"]}
    assert could_go["tzdata"]["why"] == "base"
    assert could_go["tzdata"]["bytes"] > 100_000
    assert not {"man-db", "groff-base", "libc6", "dpkg"} & set(could_go), "asked for, needed by such, or essential"
    assert list(could_go) == sorted(could_go, key=lambda name: (-could_go[name]["bytes"], name))
    assert report["packages"] > 60
    total = sum(row["bytes"] for row in report["unneeded"])
    for limit, status in ((f"{total // 1024 + 1}KiB", 0), ("1KiB", 1)):
        done = ordinary_user.dibble(
            "check", "--limit", limit, *CONTAINER, cwd=place, env=ordinary_user.environment(), check=False
        )
        assert done.returncode == status, done.stderr
        assert "could go: " in done.stdout.splitlines()[-1]
    assert not list(place.iterdir()), "no image is written"


def test_a_limit_that_is_no_size_is_told(ordinary_user: Person) -> None:
    done = ordinary_user.dibble("check", "--limit", "much", *CONTAINER, check=False)
    assert done.returncode == 2
    assert "--limit takes a number of MiB" in done.stderr
