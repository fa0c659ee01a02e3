"""`install-packages` of yum, zypper, gentoo and dpkg: what it asks of the package manager, which is faked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import HookBuild, run_inside

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


def dnf(build: HookBuild, version: str = "4.14.0") -> None:
    build.fake("dnf", f'if [ "$1" = --version ]; then echo "{version}"; fi')
    build.fake("rpm", 'name="${@: -1}"; [ "$name" != absent ] && echo "$name-real"')


def asked(build: HookBuild) -> list[str]:
    """The calls so far, each as one line, without questions for versions and installed packages."""
    calls: list[list[str]] = []
    for word in build.calls:
        if word in ("dnf", "yum", "rpm", "zypper", "emerge", "pkg-map", "map-packages", "emerge-webrsync"):
            calls.append([])
        calls[-1].append(word)
    return [
        " ".join(call)
        for call in calls
        if call[0] not in ("rpm", "pkg-map", "map-packages") and call[1:] != ["--version"]
    ]


def test_dnf_installs_and_marks_what_was_asked_for(build: HookBuild) -> None:
    dnf(build)
    done = run_inside(build, "yum/bin/install-packages", "vim", "absent", "@core", env={"YUM": "dnf"})
    assert asked(build) == [
        "dnf -y -v install --setopt=strict=0 vim absent @core",
        "dnf -q mark install vim-real",
    ]
    assert "WARNING: no repository has a package absent" in done.output


def test_one_package_that_is_not_there_is_not_passed_over(build: HookBuild) -> None:
    dnf(build)
    run_inside(build, "yum/bin/install-packages", "vim", env={"YUM": "dnf"})
    assert asked(build)[0] == "dnf -y -v install vim"


def test_dnf5_is_asked_in_its_own_words(build: HookBuild) -> None:
    dnf(build, "dnf5 version 5.2.8")
    run_inside(build, "yum/bin/install-packages", "a", "b", env={"YUM": "dnf", "YUM_FLAGS": "-y -v --nobest"})
    assert asked(build) == [
        "dnf -y --nobest install --skip-unavailable a b",
        "dnf -y mark user a-real b-real",
    ]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["-u"], "dnf -y -v upgrade"),
        (["-e", "vim"], "dnf -y -v remove vim"),
        (["-d", "down", "vim"], "dnf -y -v install --downloadonly --downloaddir=down vim"),
    ],
)
def test_dnf_upgrades_removes_and_downloads(build: HookBuild, words: list[str], call: str) -> None:
    dnf(build)
    run_inside(build, "yum/bin/install-packages", *words, env={"YUM": "dnf"})
    assert asked(build) == [call]


def test_names_go_through_the_map_of_an_element_else_through_map_packages(build: HookBuild) -> None:
    dnf(build)
    build.fake("pkg-map", "echo mapped")
    build.fake("map-packages", "echo old-mapped")
    run_inside(build, "yum/bin/install-packages", "-m", "web", "x", env={"YUM": "dnf"})
    run_inside(build, "yum/bin/install-packages", "x", env={"YUM": "dnf"})
    assert [call for call in asked(build) if "-v install" in call] == [
        "dnf -y -v install mapped",
        "dnf -y -v install old-mapped",
    ]


def test_packages_on_the_blacklist_are_left_out(build: HookBuild) -> None:
    dnf(build)
    (build.target / "tmp").mkdir()
    (build.target / "tmp/yum-blacklist").write_text("dkms\n")
    done = run_inside(build, "yum/bin/install-packages", "dkms", env={"YUM": "dnf"})
    assert "dkms is in" in done.output
    assert asked(build) == []


@pytest.mark.parametrize("element", ["yum", "zypper", "gentoo"])
def test_nothing_to_install_is_no_failure_and_a_map_that_fails_is_one(build: HookBuild, element: str) -> None:
    dnf(build)
    build.fake("emerge-webrsync")
    script = f"{element}/bin/install-packages"
    assert "No packages to install" in run_inside(build, script).output
    build.fake("pkg-map", "exit 1")
    run_inside(build, script, "-m", "web", "x", status=1)
    assert "Usage:" in run_inside(build, script, "-h").output
    run_inside(build, script, "-x", status=1)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["vim"], "install --no-recommends --auto-agree-with-licenses vim"),
        (["-d", "vim"], "install --no-recommends --download-only --auto-agree-with-licenses vim"),
        (["-e", "vim"], "remove --clean-deps vim"),
        (["-u"], "dist-upgrade --no-recommends --auto-agree-with-licenses"),
    ],
)
def test_zypper_asks_nobody(build: HookBuild, words: list[str], call: str) -> None:
    build.fake("zypper")
    run_inside(build, "zypper/bin/install-packages", *words)
    assert asked(build) == [f"zypper --non-interactive {call}"]


@pytest.mark.parametrize(("status", "expected"), [(102, 0), (103, 0), (104, 104), (4, 4)])
def test_only_a_zypper_that_did_its_work_counts_as_done(build: HookBuild, status: int, expected: int) -> None:
    build.fake("zypper", f"exit {status}")
    run_inside(build, "zypper/bin/install-packages", "vim", status=expected)


def test_portage_fetches_its_tree_first_and_cleans_up_after_removing(build: HookBuild) -> None:
    build.fake("emerge")
    build.fake("emerge-webrsync")
    build.run("gentoo/bin/install-packages", "-e", "app/x", env={"GENTOO_EMERGE_ENV": "MAKEOPTS=-j1"})
    calls = " ".join(build.calls)
    assert calls.index("emerge-webrsync") < calls.index("--deselect app/x") < calls.index("--depclean")


def test_dibbles_engine_calls_emerge_unless_it_wants_variables_of_its_own(build: HookBuild) -> None:
    for name in ("emerge", "emerge-webrsync", "dib-engine"):
        build.fake(name)
    for words in (["app/x", "app/y"], ["-e", "app/x"], ["-u"]):
        build.run("gentoo/bin/install-packages", *words)
    calls = [call for call in build.calls if call not in ("emerge-webrsync", "--quiet")]
    assert " ".join(calls) == "dib-engine install app/x app/y dib-engine remove app/x dib-engine upgrade"


def test_debians_names_are_mapped_with_a_warning(build: HookBuild) -> None:
    done = build.run("redhat-common/bin/map-packages", "git-core", "libfoo-dev", "vlan", "less")
    lines = done.output.splitlines()
    assert lines[-1] == "git libfoo-devel less"
    assert len(lines) == 4


def test_dibbles_engine_installs_where_it_knows_the_database(build: HookBuild) -> None:
    dnf(build)
    build.fake("dib-engine")
    (build.target / "usr/lib/sysimage/rpm").mkdir(parents=True)
    (build.target / "usr/lib/sysimage/rpm/rpmdb.sqlite").touch()
    script = "yum/bin/install-packages"
    for words in (["vim", "git"], ["-e", "vim"], ["-u"], ["vim", "@core"]):
        run_inside(build, script, *words, env={"YUM": "dnf"})
    run_inside(build, script, "vim", env={"YUM": "dnf", "YUM_FLAGS": "-y --nobest"})
    calls = " ".join(build.calls)
    assert "dib-engine install vim git dib-engine remove vim dib-engine upgrade" in calls.replace("dnf --version ", "")
    assert "install --setopt=strict=0 vim @core" in calls
    assert "--nobest install vim" in calls
