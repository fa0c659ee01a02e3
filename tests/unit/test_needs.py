"""Which packages nobody asked for or needs: roots, alternatives, what is provided, recommended, and left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import UsageError
from dibble.packages.dpkg_needs import installed_packages
from dibble.packages.needs import Installed, unneeded
from dibble.run.check import report_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

pytestmark = pytest.mark.unit


def package(name: str, *needs: str, recommends: tuple[str, ...] = (), provides: tuple[str, ...] = ()) -> Installed:
    """Alternatives are parted by `|`; a name with `!` is essential."""
    return Installed(
        name.rstrip("!"),
        "1",
        "all",
        frozenset(provides),
        tuple(tuple(group.split("|")) for group in needs),
        tuple(tuple(group.split("|")) for group in recommends),
        name.endswith("!"),
    )


def found(*packages: Installed, asked: set[str], base: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    return {one.package.name: (one.why, *one.of) for one in unneeded(packages, asked, base)}


def test_what_is_asked_for_essential_or_needed_by_such_stays() -> None:
    assert found(package("shell!", "libc"), package("libc"), package("web", "lib"), package("lib"), asked={"web"}) == {}


def test_each_alternative_that_is_there_and_each_that_provides_the_name_counts_as_needed() -> None:
    packages = [package("web", "mail|mta"), package("mail"), package("exim", provides=("mta",)), package("other")]
    assert found(*packages, asked={"web"}) == {"other": ("left",)}


def test_what_is_only_recommended_is_told_with_those_that_do_and_with_what_it_needs() -> None:
    packages = [
        package("web", recommends=("docs",)),
        package("docs", "viewer"),
        package("viewer", recommends=("fonts",)),
    ]
    assert found(*packages, package("fonts"), asked={"web"}) == {
        "docs": ("recommended", "web"),
        "viewer": ("recommended", "docs"),
        "fonts": ("recommended", "viewer"),
    }


def test_what_the_system_began_with_is_told_as_such() -> None:
    assert found(package("tzdata"), package("gone"), asked=set(), base={"tzdata"}) == {
        "tzdata": ("base",),
        "gone": ("left",),
    }


def test_packages_that_only_need_each_other_could_go() -> None:
    assert set(found(package("one", "two"), package("two", "one"), asked=set())) == {"one", "two"}


NAMES = st.sampled_from("abcdef")


@given(
    st.dictionaries(NAMES, st.tuples(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=2)), max_size=6),
    st.sets(NAMES),
)
def test_without_what_could_go_every_need_of_the_rest_is_still_met(
    system: dict[str, tuple[list[str], list[str]]], asked: set[str]
) -> None:
    packages = [package(name, *needs, recommends=tuple(wishes)) for name, (needs, wishes) in system.items()]
    go = set(found(*packages, asked=asked))
    stay = {one.name: one for one in packages if one.name not in go}
    assert asked & set(system) <= set(stay)
    for one in stay.values():
        for group in one.needs:
            assert group[0] in stay or group[0] not in system, (one, go)


STATUS = """Package: base-files
Status: install ok installed
Essential: yes
Version: 1
Architecture: amd64
Pre-Depends: awk

Package: mawk
Status: install ok installed
Version: 1
Architecture: amd64
Multi-Arch: same
Provides: awk (= 1), posix-awk

Package: web
Status: install ok installed
Version: 1
Architecture: all
Depends: lib (>= 2) | lib-compat, python3:any
Recommends: docs

Package: lib
Status: install ok installed
Version: 2
Architecture: amd64

Package: python3
Status: install ok installed
Version: 3
Architecture: amd64

Package: docs
Status: install ok installed
Version: 1
Architecture: all

Package: tzdata
Status: install ok installed
Version: 1
Architecture: all

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all
"""
AUTOMATIC = "".join(
    f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n\n" for name in ("lib", "python3", "docs")
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "var/lib/apt").mkdir(parents=True)
    (tmp_path / "var/lib/apt/extended_states").write_text(AUTOMATIC)
    (tmp_path / "usr/share/doc").mkdir(parents=True)
    (tmp_path / "usr/share/doc/manual").write_bytes(bytes(700))
    (tmp_path / "usr/share/doc/link").symlink_to("/etc/passwd")
    (tmp_path / "share").symlink_to("/usr/share")
    (info / "docs.list").write_text("/.\n/share\n/share/doc\n/share/doc/manual\n/share/doc/link\n/share/doc/left-out\n")
    (info / "mawk:amd64.list").write_text("/.\n")
    return tmp_path


def test_relations_of_debian_are_read_without_versions_and_architectures(root: Path) -> None:
    packages = {one.name: one for one in installed_packages(root)}
    assert packages["web"].needs == (("lib", "lib-compat"), ("python3",))
    assert packages["mawk"].provides == {"awk", "posix-awk"}
    assert packages["base-files"].essential
    assert "gone" not in packages


def test_the_report_counts_the_bytes_that_are_really_in_the_tree(root: Path) -> None:
    requests = [
        {"verb": "bootstrap", "words": ["apt", "--include", "lib"], "install": [["base-files"], ["mawk"], ["tzdata"]]},
        {"verb": "install", "words": ["web"], "manual": ["web"], "install": [["web"]]},
    ]
    report = report_of(root, requests)
    assert [(one.unneeded.package.name, one.unneeded.why, one.size) for one in report.found] == [
        ("docs", "recommended", 700),
        ("tzdata", "base", 0),
    ]
    assert (report.packages, report.size, report.found_size) == (7, 700, 700)


def test_what_a_bootstrap_was_asked_for_by_name_is_asked_for(root: Path) -> None:
    words = ["apt", "--suite", "x", "--include=tzdata,docs"]
    assert report_of(root, [{"verb": "bootstrap", "words": words, "install": [["tzdata"]]}]).found == ()


def test_a_tree_without_dpkg_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no packages of dpkg"):
        report_of(tmp_path, [])
