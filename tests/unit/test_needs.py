"""Which packages nobody asked for or needs: roots, alternatives, what is provided, recommended, and left over."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import UsageError
from dibble.packages import dpkg_needs, pacman_needs, rpm_needs
from dibble.packages.needs import Installed, Inventory, unneeded
from dibble.run.check import inventory_of, report_of
from dibble.sandbox.process import Completed
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
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


class PrintingToolbox(HostToolbox):
    """Prints what it was given instead of running rpm, which a host may lack."""

    def __init__(self, text: str) -> None:
        self._text = text

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        return Completed(tuple(argv), 0, self._text)


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


def test_what_is_asked_for_by_what_a_package_provides_stays() -> None:
    packages = [package("dnf", provides=("yum",)), package("yum-utils", provides=("yum",))]
    assert found(*packages, asked={"yum"}) == {}
    assert found(*packages, package("yum"), asked={"yum"}) == {"dnf": ("left",), "yum-utils": ("left",)}


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
    packages = {one.name: one for one in dpkg_needs.inventory(root).installed}
    assert packages["web"].needs == (("lib", "lib-compat"), ("python3",))
    assert packages["mawk"].provides == {"awk", "posix-awk"}
    assert packages["base-files"].essential
    assert "gone" not in packages


def test_the_report_counts_the_bytes_that_are_really_in_the_tree(root: Path) -> None:
    requests = [
        {"verb": "bootstrap", "words": ["apt", "--include", "lib"], "install": [["base-files"], ["mawk"], ["tzdata"]]},
        {"verb": "install", "words": ["web"], "manual": ["web"], "install": [["web"]]},
    ]
    report = report_of(inventory_of(root, HostToolbox()), root, requests)
    assert [(one.unneeded.package.name, one.unneeded.why, one.size) for one in report.found] == [
        ("docs", "recommended", 700),
        ("tzdata", "base", 0),
    ]
    assert (report.packages, report.size, report.found_size) == (7, 700, 700)


def test_what_a_bootstrap_was_asked_for_by_name_is_asked_for(root: Path) -> None:
    words = ["apt", "--suite", "x", "--include=tzdata,docs"]
    inventory = inventory_of(root, HostToolbox())
    assert report_of(inventory, root, [{"verb": "bootstrap", "words": words, "install": [["tzdata"]]}]).found == ()


def test_a_tree_without_packages_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no packages of dpkg, rpm or pacman"):
        inventory_of(tmp_path, HostToolbox())


QUERY = """nbash\t5.2-1\tx86_64
pbash
p/bin/sh
rlibtinfo.so.6()(64bit)
rrpmlib(CompressedFileNames)
f/usr/bin/bash
nweb\t1:2-3\tnoarch
pweb
r/bin/sh
r/usr/sbin/tool
r(lib(x)(64bit) >= 2 if (one or two))
w(docs and fonts)
f/usr/share/web
nncurses-libs\t6-1\tx86_64
plibtinfo.so.6()(64bit)
ntool\t1-1\tx86_64
ptool
f/usr/bin/tool
nlibx\t1-1\tx86_64
plib(x)(64bit)
ndocs\t1-1\tnoarch
pdocs
f/usr/share/doc/text
nfonts\t1-1\tnoarch
pfonts
ndnf\t4-1\tnoarch
pdnf
nkernel-core\t1-1\tx86_64
pkernel-core
f/boot/vmlinuz-1
nkernel-core\t2-1\tx86_64
pkernel-core
f/boot/vmlinuz-2
ngpg-pubkey\t1-1\t(none)
pgpg(some key)
"""


def of_rpm(root: Path) -> Inventory:
    (root / "var/lib/rpm").mkdir(parents=True)
    (root / "var/lib/rpm/rpmdb.sqlite").touch()
    return rpm_needs.inventory(root, PrintingToolbox(QUERY))


def test_dependencies_of_rpm_are_names_files_libraries_and_boolean_ones(tmp_path: Path) -> None:
    (tmp_path / "etc/dnf/protected.d").mkdir(parents=True)
    (tmp_path / "etc/dnf/protected.d/dnf.conf").write_text("dnf\n")
    packages = {one.name: one for one in of_rpm(tmp_path).installed}
    assert "gpg-pubkey" not in packages
    assert packages["dnf"].essential
    assert packages["web"].version == "1:2-3"
    assert found(*packages.values(), asked={"web"}) == {
        "docs": ("recommended", "web"),
        "fonts": ("recommended", "web"),
        "kernel-core": ("left",),
    }, "a path is met by a file or by what a package provides, whichever directory for programs it names"


def test_the_marks_of_dnf_tell_what_only_came_along(tmp_path: Path) -> None:
    place = tmp_path / "var/lib/dnf"
    place.mkdir(parents=True)
    with sqlite3.connect(place / "history.sqlite") as database:
        database.execute("CREATE TABLE rpm (item_id INTEGER, name TEXT)")
        database.execute("CREATE TABLE trans_item (id INTEGER PRIMARY KEY, item_id INTEGER, reason INTEGER)")
        database.executemany("INSERT INTO rpm VALUES (?, ?)", [(1, "web"), (2, "docs"), (3, "fonts")])
        rows = [(1, 1), (2, 4), (3, 1), (1, 2)]  # a dependency, a weak one, a dependency; then web is asked for
        database.executemany("INSERT INTO trans_item (item_id, reason) VALUES (?, ?)", rows)
    database.close()
    assert of_rpm(tmp_path).automatic == {"docs", "fonts"}
    newer = tmp_path / "usr/lib/sysimage/libdnf5/packages.toml"
    newer.parent.mkdir(parents=True)
    newer.write_text('[packages]\n"web.noarch" = {reason = "User"}\n"x.y.noarch" = {reason = "Dependency"}\n')
    assert rpm_needs.inventory(tmp_path, PrintingToolbox(QUERY)).automatic == {"x.y"}
    (tmp_path / "etc/zypp").mkdir(parents=True)
    (tmp_path / "var/lib/zypp").mkdir(parents=True)
    (tmp_path / "var/lib/zypp/AutoInstalled").write_text("# made by\n\ntool\n")
    assert rpm_needs.inventory(tmp_path, PrintingToolbox(QUERY)).automatic == {"tool"}


def test_two_versions_of_a_package_have_their_own_sizes(tmp_path: Path) -> None:
    inventory = of_rpm(tmp_path)
    (tmp_path / "boot").mkdir()
    for number in (1, 2):
        (tmp_path / f"boot/vmlinuz-{number}").write_bytes(bytes(number * 100))
    base = [[one.name] for one in inventory.installed]
    report = report_of(inventory, tmp_path, [{"verb": "bootstrap", "words": ["dnf"], "install": base}])
    rows = [(one.unneeded.package.version, one.size) for one in report.found[:2]]
    assert rows == [("2-1", 200), ("1-1", 100)]
    kept = [{"verb": "install", "words": ["kernel-core"], "manual": ["kernel-core"]}]
    assert "kernel-core" not in {one.unneeded.package.name for one in report_of(inventory, tmp_path, kept).found}


def test_dependencies_of_pacman_are_read_without_versions_and_reasons(tmp_path: Path) -> None:
    for name, more, files in (
        ("web-1-1", "%DEPENDS%\nlib>=2\nsh\n\n%OPTDEPENDS%\ndocs: to read\n\n", ""),
        ("lib-2-1", "%REASON%\n1\n\n", ""),
        ("bash-5-1", "%PROVIDES%\nsh=5\n\n%REASON%\n1\n\n", ""),
        ("docs-1-1", "%REASON%\n1\n\n", "%FILES%\nusr/share/\nusr/share/text\n\n"),
    ):
        place = tmp_path / "var/lib/pacman/local" / name
        place.mkdir(parents=True)
        plain, version, release = name.split("-")
        head = f"%NAME%\n{plain}\n\n%VERSION%\n{version}-{release}\n\n%ARCH%\nany\n\n"
        (place / "desc").write_text(head + more)
        (place / "files").write_text(files)
    (tmp_path / "usr/share").mkdir(parents=True)
    (tmp_path / "usr/share/text").write_bytes(bytes(50))
    inventory = pacman_needs.inventory(tmp_path)
    assert inventory.automatic == {"lib", "bash", "docs"}
    report = report_of(inventory, tmp_path, [])
    assert [(one.unneeded.package.name, one.unneeded.of, one.size) for one in report.found] == [("docs", ("web",), 50)]
