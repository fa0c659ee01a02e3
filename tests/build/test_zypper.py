"""Packages of openSUSE by zypper, from a stand-in for its archive: roots without a kernel, in both ways of building."""

from __future__ import annotations

import json
import os
import re
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, cached, printed, ran
from tests.serving import served
from tests.standins import suse
from tests.standins.make import key_of, made

from dibble.packages.rpm_keys import fingerprints
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

NAMES = "filesystem bash coreutils rpm zypper openSUSE-release"
ROOT = f"""
request=(--releasever "$DIB_RELEASE" --arch x86_64 --repository "oss=>$REPOSITORY")
for name in {NAMES}; do request+=(--include "$name"); done
for key in ${{KEYS:-}}; do request+=(--key "$(cat "$key")"); done
for fingerprint in ${{FINGERPRINTS:-}}; do request+=(--fingerprint "$fingerprint"); done
dib-engine bootstrap zypper "${{request[@]}}"
mkdir -p "$TARGET_ROOT"/{{dev,proc,sys,tmp,root,etc/zypp/repos.d}}
file=$TARGET_ROOT/etc/zypp/repos.d/oss.repo
printf '[oss]\\nname=Main\\nenabled=1\\nbaseurl=%s\\ngpgcheck=1\\n' "$REPOSITORY" > "$file"
"""
REMOVED = "rpm -q tcpdump libpcap0.8t64 || true"
INSTALLED = "install-packages tcpdump hostname pattern:sw_management"
# What systemd's and pam's scripts change on purpose
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/etc/machine-id", "/var/log/journal"}


@pytest.fixture(scope="module")
def mirror(test_cache: Path) -> Iterator[tuple[str, Path]]:
    """The address of the repository, and the file of its key."""
    distribution = suse.leap(arch=host_arch())
    place = made(distribution, test_cache)
    with served(place) as url:
        yield f"{url}/{distribution.repositories[0].path}", key_of(distribution, place)


def elements_of(person: Person, mirror: tuple[str, Path], name: str) -> tuple[SmallElements, dict[str, str]]:
    """An element `leap`, and the variables that its builds want."""
    made_here = SmallElements(person, person.directory(name))
    made_here.write("leap/element-provides", "operating-system\n")
    made_here.write("leap/element-deps", "zypper\n")
    made_here.write("leap/README.rst", "====\nleap\n====\nA small openSUSE.\n")
    made_here.script("leap/environment.d/10-leap.bash", "export DISTRO_NAME=opensuse DIB_RELEASE=16.0", whole=True)
    made_here.script("leap/root.d/10-leap", ROOT)
    made_here.script("leap/install.d/50-install", INSTALLED)
    made_here.script("leap/install.d/60-remove", f"install-packages -e tcpdump never-there\n{REMOVED}")
    made_here.script("leap/post-install.d/50-look", "rpm -Va --nomtime || true")
    made_here.script("leap/post-install.d/60-list", "rpm -qa --queryformat '%{NAME} %{INSTALLTIME}\\n' | sort")
    made_here.script("leap/post-install.d/70-history", "cat /var/log/zypp/history")
    key = made_here.write("key.asc", mirror[1].read_text())
    return made_here, {"REPOSITORY": mirror[0], "KEYS": str(key)}


@pytest.fixture(params=["ourselves", "ordinary_user"])
def leap(request: pytest.FixtureRequest, mirror: tuple[str, Path]) -> tuple[SmallElements, dict[str, str]]:
    return elements_of(request.getfixturevalue(request.param), mirror, "zypper")


def test_packages_are_put_in_place_by_zypper_and_are_whole(leap: tuple[SmallElements, dict[str, str]]) -> None:
    elements, variables = leap
    events = elements.build("-o", "leap", "leap", check=True, **variables)
    whole = printed(events, "post-install.d/50-look")
    assert {line.split()[-1] for line in whole if " c " not in line} <= CHANGED
    rows = [line.split() for line in printed(events, "post-install.d/60-list")]
    assert {"bash", "zypper", "hostname", "patterns-base-sw_management", "gpg-pubkey"} <= {row[0] for row in rows}
    assert len({row[1] for row in rows}) == 1, "all is installed at the build's epoch"
    assert printed(events, "install.d/60-remove")[-2:] == [
        "package tcpdump is not installed",
        "package libpcap0.8t64 is not installed",
    ], "and what only tcpdump needed goes with it"
    assert any("never-there is not installed" in str(event) for event in events)

    with tarfile.open(elements.place / "leap.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    history = printed(events, "post-install.d/70-history")
    dated = [line.removeprefix("# ")[:19] for line in history if re.match(r"(# )?\d{4}-", line)]
    assert len(dated) > 100
    assert len(set(dated)) == 1, "as late as the build's epoch"
    assert not [line for line in history if "/tmp/" in line], "no directory of the build"
    assert "usr/lib/sysimage/rpm/Packages.db" in names, "the kind of database that openSUSE has"
    assert not {name for name in names if name.startswith(("var/cache/zypp/raw", "var/cache/zypp/solv/", "run/zypp"))}
    assert "etc/zypp/repos.d/oss.repo" in names

    report = json.loads(elements.run("check", "--json", "-n", "-t", "tar", "leap", check=True, **variables).stdout)
    could_go = {row["package"]: row for row in report["unneeded"]}
    assert report["packages"] == len(rows) - 1, "the key is no package"
    assert not {"bash", "hostname", "zypper"} & set(could_go), "asked for, or needed by such"

    elements.script("leap/finalise.d/50-more", "true")
    again = elements.build("-o", "leap", "leap", check=True, **variables)
    assert "install.d/50-install" in cached(again)
    assert ran(again) == [step for step in ran(again) if step > "finalise.d/50"]


def test_a_plan_tells_what_will_be_installed_before_it_is(ourselves: Person, mirror: tuple[str, Path]) -> None:
    elements, variables = elements_of(ourselves, mirror, "zypper-plan")
    elements.script("leap/install.d/60-remove", "true")  # what a removal comes to, a plan cannot tell
    elements.build("-o", "leap", "leap", check=True, **variables)  # what a script asks for is known once it has run
    plan = elements.plan("-p", "lsof,bash", "leap", **variables)
    told = {step["step"]: {row["name"]: row["action"] for row in step["packages"] or ()} for step in plan["steps"]}
    assert {"bash", "filesystem", "zypper"} <= set(told["root.d/10-leap"])
    (asked,) = (packages for packages in told.values() if "lsof" in packages)
    assert asked["lsof"] == "install"
    assert not set(asked) & set(told["root.d/10-leap"]), "these are there already"


def test_a_key_that_is_not_the_repository_s_is_one_error_with_both_keys(
    ourselves: Person, mirror: tuple[str, Path]
) -> None:
    elements, variables = elements_of(ourselves, mirror, "zypper-key")
    (own,) = fingerprints([mirror[1].read_text()])
    distrusted = next((ourselves.checkout / "src/dibble/packages/keys").glob("4D64FEC*.asc"))
    elements.write("key.asc", distrusted.read_text())
    done = elements.run("build", "-n", "-t", "tar", "-o", "never", "leap", check=False, **variables)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"signed with the key {own} (openSUSE Project Signing Key" in said
    assert "4D64FEC119C2029067D6E791F8D2585B8783D481 (Debian Stable Release Key" in said
    assert "DIB_ZYPPER_KEYS=FILE" in said

    variables |= {"KEYS": "", "FINGERPRINTS": "4D64FEC119C2029067D6E791F8D2585B8783D481"}
    done = elements.run("build", "-n", "-t", "tar", "-o", "never", "leap", check=False, **variables)
    said = done.stdout + done.stderr
    assert f"it publishes: {own} (openSUSE Project Signing Key" in said
    assert "4D64FEC119C2029067D6E791F8D2585B8783D481" in said
    assert not (elements.place / "never.tar").exists()


def test_with_the_right_fingerprint_the_published_key_counts_and_a_name_that_is_nowhere_is_an_error(
    ourselves: Person, mirror: tuple[str, Path]
) -> None:
    elements, variables = elements_of(ourselves, mirror, "zypper-missing")
    (own,) = fingerprints([mirror[1].read_text()])
    variables |= {"KEYS": "", "FINGERPRINTS": own}
    elements.script("leap/root.d/10-leap", ROOT.replace("coreutils", "coreutils no-such-package"))
    done = elements.run("build", "-n", "-t", "tar", "-o", "never", "leap", check=False, **variables)
    assert done.returncode == 1
    assert "no repository has a package no-such-package" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(elements.place) == ["elements"]  # noqa: PTH208 - names only
