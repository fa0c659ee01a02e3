"""The contract of elements, rule by rule: probe elements write down what they find, in builds of dibble and, where it
can be installed, of diskimage-builder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.probes.builds import DIB_PACKAGES, PROBES, SHIPPED, Builder, Built, Dibble, DiskimageBuilder
from tests.contract.probes.cases import BY_CHANCE, CASES, ENDINGS, Case, Ending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.contract

DIFFERENCES = Path(__file__).resolve().parents[2] / "docs" / "differences.md"
cases = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
endings = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
everything = (*SHIPPED, *PROBES)
DIFFERENT = {case.differs for case in CASES if case.differs} | {one.differs for one in ENDINGS.values() if one.differs}


def by_dibble(person: Person, name: str) -> Iterator[Dibble]:
    place = person.directory(name)
    yield Dibble(person, place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def dibble(ourselves: Person, debian_packages: None) -> Iterator[Builder]:
    yield from by_dibble(ourselves, "probes")


@pytest.fixture(scope="module")
def dib(ourselves: Person, test_cache: Path, debian_packages: None) -> Iterator[Builder]:
    if os.getuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("diskimage-builder needs root and, here, a Debian host")
    known = subprocess.run(["dpkg", "-s", *DIB_PACKAGES], check=False, capture_output=True, text=True).stdout
    missing = [name for name in DIB_PACKAGES if f"Package: {name}\nStatus: install ok installed" not in known]
    if missing:
        subprocess.run(["apt-get", "-qq", "--yes", "--no-install-recommends", "install", *missing], check=True)
    place = ourselves.directory("probes-dib")
    yield DiskimageBuilder(test_cache / "diskimage-builder", place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def built(dibble: Builder) -> Built:
    return dibble.build(*everything)


@pytest.fixture(scope="module")
def built_by_dib(dib: Builder) -> Built:
    return dib.build(*everything)


@cases
def test_dibble_keeps_the_rule(case: Case, built: Built) -> None:
    assert built.tree, built.output[-3000:]
    assert case.observe(built) == case.expected


@cases
def test_diskimage_builder_shows_the_same_or_a_known_difference(case: Case, built_by_dib: Built) -> None:
    assert built_by_dib.tree, built_by_dib.output[-3000:]
    if case.upstream is not BY_CHANCE:
        assert case.observe(built_by_dib) == (case.upstream if case.differs else case.expected)


@pytest.mark.parametrize("differs", sorted(DIFFERENT))
def test_every_difference_is_documented(differs: str) -> None:
    rows = [line for line in DIFFERENCES.read_text().splitlines() if line.startswith("| ")]
    assert any(row.split(" | ")[0].removeprefix("| ").startswith(differs) for row in rows)


@endings
def test_a_build_ends_as_it_should(ending: Ending, dibble: Builder) -> None:
    done = dibble.build(*ending.words, **dict(ending.variables))
    assert done.status == ending.status, done.output[-3000:]
    assert bool(done.tree) is (ending.status == 0)
    assert "fault in dibble" not in done.output
    for said in ending.said:
        assert said in done.output


def test_a_build_that_is_not_traced_shows_no_commands(dibble: Builder) -> None:
    done = dibble.build("probe-os", "traced", PROBE_VALUE="not traced")
    assert done.status == 0, done.output[-3000:]
    assert "level-0" in done.output
    assert "traced-42" not in done.output


@endings
def test_a_build_of_diskimage_builder_ends_the_same(ending: Ending, dib: Builder) -> None:
    done = dib.build(*ending.words, **dict(ending.variables))
    assert done.status == (ending.upstream if ending.differs else ending.status), done.output[-3000:]


def test_an_ordinary_user_gets_the_same_tree(ordinary_user: Person, built: Built) -> None:
    """The files that scripts wrote about themselves tell who and where they are."""
    for other in by_dibble(ordinary_user, "probes"):
        done = other.build(*everything)
        assert done.status == 0, done.output[-3000:]
        assert done.tree.keys() == built.tree.keys()
        own = ("probe/", "etc/dib-manifests/", "opt/git/", "opt/moved/")
        assert [name for name in done.tree if not name.startswith(own) and done.tree[name] != built.tree[name]] == []
        for case in CASES:
            assert case.observe(done) == case.expected, case.name
