"""Trees that the apt engine makes against those of mmdebstrap, entry by entry; and what else a mirror may bring."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from dibble.packages.debian_sources import host_mirrors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.build

MIRROR = host_mirrors().archive
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
INCLUDE = (
    "cron",  # a group of its own and a setgid file by dpkg-statoverride
    "ca-certificates",  # a trigger, files made by a postinst
    "dbus",  # a setuid file of its own group, a user
    "gawk",  # an alternative that takes the place of another
    "git",  # hard links, many files
    "iputils-ping",  # a capability
    "libutempter0",  # a setgid file in the package
    "openssh-client",  # debconf, a setgid file, conffiles
    "procps",  # a conffile that is wanted removed
    "systemd-sysv",  # users by sysusers, links of units, a machine-id
    "vim-tiny",  # many alternatives
)
DIVERTER = "molly-guard"  # its preinst diverts files that systemd-sysv ships

# Paths that differ for a reason, with all below them.
EXPLAINED = {
    "run": "mmdebstrap empties it; in a system that runs, something is mounted on it",
    "etc/machine-id": "random; mmdebstrap empties it",
    "var/lib/dbus/machine-id": "the same number; mmdebstrap removes it",
    "var/log/dpkg.log": "mmdebstrap removes logs; ours are emptied when the image is finished",
    "var/log/alternatives.log": "as above",
    "var/log/apt": "as above; our own apt has its logs elsewhere",
    "var/cache/ldconfig/aux-cache": "times and inodes of libraries; mmdebstrap removes it",
    "etc/apt/sources.list": "the element for the distribution writes it",
    "etc/fstab": "the build writes it",
    "etc/hostname": "mmdebstrap copies the host's",
    "etc/resolv.conf": "as above",
    "var/lib/dpkg/arch": "written when another architecture is added; the native one alone says nothing",
    # mmdebstrap lets an apt in the target fetch and install, ours does that outside
    "var/cache/apt/archives": "the target's apt makes its lock, and gives partial/ to _apt, when it first runs",
    "var/lib/apt/lists": "as above",
    "var/cache/debconf/tmp.ci": "an empty directory that dpkg-preconfigure leaves; mmdebstrap's apt does not run it",
    # the state before the last change, and the last change depends on the order of the packages
    "etc/group-": "last but one state",
    "etc/gshadow-": "last but one state",
    "etc/passwd-": "last but one state",
    "etc/shadow-": "last but one state",
    "var/lib/dpkg/diversions-old": "last but one state",
    "var/lib/dpkg/statoverride-old": "last but one state",
    "var/lib/dpkg/status-old": "last but one state",
    "var/cache/debconf/config.dat-old": "last but one state",
    "var/cache/debconf/templates.dat-old": "last but one state",
}
MARKS = "var/lib/apt/extended_states"  # after a bootstrap every package counts as asked for, as with debootstrap


def request(suite: str = "trixie", mirror: str = MIRROR, **more: Any) -> dict[str, Any]:
    return {"suite": suite, "mirrors": [mirror], **more}


def drive(person: Person, *steps: list[Any], fails: bool = False) -> list[Any]:
    """The value of each step of tests/build/apt_tree_script.py, run as a person."""
    person.dibble("--version")  # makes their .venv
    python = person.checkout / ".venv/bin/python"
    environment = person.environment(PYTHONPATH=f"{person.checkout}/src:{person.checkout}")
    arguments = ["-m", "tests.build.apt_tree_script", str(person.cache), json.dumps(steps)]
    done = person.run([python, *arguments], cwd=person.checkout, env=environment)
    values: list[Any] = json.loads(done.stdout)
    failed = len(values) < len(steps) or (isinstance(values[-1], dict) and "kind" in values[-1])
    assert failed == fails, values[-1]
    return values


@pytest.fixture(params=["ourselves", "ordinary_user"])
def person(request: pytest.FixtureRequest) -> Person:
    found: Person = request.getfixturevalue(request.param)
    if request.param == "ordinary_user" and os.getuid() != 0:
        pytest.skip("we are the ordinary user")
    return found


@pytest.fixture(scope="module")
def public_directory() -> Iterator[Path]:
    """A directory that everybody can read."""
    path = Path(tempfile.mkdtemp(prefix="dibble-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _reference(path: Path, *names: str) -> Path:
    """A tree by mmdebstrap as a tar archive. It is made in memory where possible, for its many syncs."""
    if not path.exists():
        mode = "root" if os.getuid() == 0 else "unshare"
        place = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2 << 30 else tempfile.gettempdir()
        source = f"deb [signed-by={KEYRING}] {MIRROR} trixie main"
        options = [f"--mode={mode}", "--variant=minbase", "--architectures=amd64"]
        options += [f"--include={','.join(names)}"] if names else []
        done = subprocess.run(
            ["mmdebstrap", *options, "--format=tar", "trixie", path, source],
            env={**os.environ, "TMPDIR": place},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return path


@pytest.fixture(scope="module")
def minimal(debian_packages: None, public_directory: Path) -> Path:
    return _reference(public_directory / "minimal.tar")


@pytest.fixture(scope="module")
def full(debian_packages: None, public_directory: Path) -> Path:
    return _reference(public_directory / "full.tar", *INCLUDE, DIVERTER)


def test_a_new_root_is_as_mmdebstrap_makes_it(person: Person, full: Path) -> None:
    names, audit, verify, found = drive(
        person,
        ["bootstrap", request(include=[*INCLUDE, DIVERTER])],
        ["run", "dpkg", "--audit"],
        ["run", "dpkg", "--verify"],
        ["compare", str(full), [*EXPLAINED, MARKS]],
    )
    assert {DIVERTER, *INCLUDE} <= {name.split()[0] for name in names}
    assert audit == [0, ""]
    assert verify == [0, ""]
    assert found == []


def test_packages_that_come_later_make_the_same_root_and_leave_the_store_alone(
    person: Person, minimal: Path, full: Path
) -> None:
    settings = {
        "etc/apt/sources.list": f"deb {MIRROR} trixie main\n",
        "etc/apt/apt.conf": 'APT::Install-Recommends "false";\n',
    }
    values = drive(
        person,
        ["bootstrap", request()],
        ["compare", str(minimal), [*EXPLAINED, MARKS]],
        ["lower"],
        ["sources", settings],
        ["install", list(INCLUDE)],
        ["install", [DIVERTER]],
        ["run", "dpkg", "--audit"],
        ["run", "dpkg", "--verify"],
        ["compare", str(full), [*EXPLAINED, "etc/apt/apt.conf"]],
        ["upgrade"],
        ["install", [], [DIVERTER, "vim-tiny"]],
        ["run", "dpkg", "--audit"],
        ["run", "dpkg", "--verify"],
        ["run", "dpkg-divert", "--list", "*molly*"],
        ["run", "readlink", "/etc/alternatives/awk"],
        ["run", "sh", "-c", "test ! -e /usr/bin/vim.tiny && test -x /usr/sbin/halt && ls /usr/sbin"],
        ["lower"],
    )
    _, at_first, before, _, natively, in_target, audit, verify, later, upgraded, removed, *checks = values
    assert at_first == []
    assert set(INCLUDE) <= set(natively["install"])
    assert natively["notes"] == []
    assert in_target["install"] == [DIVERTER]
    assert "molly-guard" in in_target["notes"][0]
    assert (audit, verify) == ([0, ""], [0, ""])
    assert later == []
    assert (upgraded["install"], upgraded["upgrade"], upgraded["remove"]) == ([], [], [])
    assert set(removed["remove"]) == {DIVERTER, "vim-tiny"}
    assert checks[:4] == [[0, ""], [0, ""], [0, ""], [0, "/usr/bin/gawk"]]
    assert checks[4][0] == 0
    assert "no-molly-guard" not in checks[4][1]
    assert checks[5] == before
