"""Trees that the apt engine makes against those of mmdebstrap, entry by entry; and what else a mirror may bring."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from tests.serving import served

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
    "libutempter0",  # a setgid file in the package
    "mtr-tiny",  # a capability, given by its postinst when there is
    "libcap2-bin",
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


def drive(person: Person, *steps: list[Any], **variables: str) -> list[Any]:
    """The value of each step of tests/build/apt_tree_script.py, run as a person with more variables."""
    person.dibble("--version")  # makes their .venv
    python = person.checkout / ".venv/bin/python"
    environment = person.environment(PYTHONPATH=f"{person.checkout}/src:{person.checkout}", **variables)
    arguments = ["-m", "tests.build.apt_tree_script", str(person.cache), json.dumps(steps)]
    done = person.run([python, *arguments], cwd=person.checkout, env=environment)
    values: list[Any] = json.loads(done.stdout)
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


def _reference(path: Path, *names: str, suite: str = "trixie", hooks: str = "") -> Path:
    """A tree by mmdebstrap as a tar archive. It is made in memory where possible, for its many syncs."""
    if not path.exists():
        mode = "root" if os.getuid() == 0 else "unshare"
        place = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2 << 30 else tempfile.gettempdir()
        source = f"deb [signed-by={KEYRING}] {MIRROR} {suite} main"
        options = [f"--mode={mode}", "--variant=minbase", "--architectures=amd64"]
        options += [f"--include={','.join(names)}"] if names else []
        options += [f"--hook-dir=/usr/share/mmdebstrap/hooks/{hooks}"] if hooks else []
        done = subprocess.run(
            ["mmdebstrap", *options, "--format=tar", suite, path, source],
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
    names, audit, verify, capability, configured, found = drive(
        person,
        ["bootstrap", request(include=[*INCLUDE, DIVERTER])],
        ["run", "dpkg", "--audit"],
        ["run", "dpkg", "--verify"],
        ["run", "getcap", "/usr/bin/mtr-packet"],
        ["run", "sed", "-En", "s/.* status installed ([^:]+):.*/\\1/p", "/var/log/dpkg.log"],
        ["compare", str(full), [*EXPLAINED, MARKS]],
    )
    assert {DIVERTER, *INCLUDE} <= {name.split()[0] for name in names}
    assert audit == [0, ""]
    assert verify == [0, ""]
    assert capability == [0, "/usr/bin/mtr-packet cap_net_raw=ep"]
    order = configured[1].split()
    assert order.index("util-linux") < order.index("sensible-utils")  # essential, so nobody depends on it
    assert found == []


REQUESTS = [
    ["nginx"],
    ["postgresql", "python3-venv"],
    ["linux-image-amd64", "grub-pc", "openssh-server"],
    ["default-mta", "cron"],
    ["docker.io", "git-"],
    ["build-essential", "perl/trixie"],
]


def test_packages_that_come_later_make_the_same_root_and_leave_the_store_alone(
    person: Person, minimal: Path, full: Path
) -> None:
    settings = {
        "etc/apt/sources.list": f"deb {MIRROR} trixie main\n",
        "etc/apt/apt.conf": 'APT::Install-Recommends "false";\n',
    }
    steps: dict[str, list[Any]] = {
        "bootstrap": ["bootstrap", request()],
        "at first": ["compare", str(minimal), [*EXPLAINED, MARKS]],
        "lower": ["lower"],
        "foreseen": [
            "foresee",
            {"install": list(INCLUDE)},
            {"install": [DIVERTER]},
            {"upgrade": True},
            {"remove": [DIVERTER, "vim-tiny"]},
        ],
        "sources": ["sources", settings],
        "known": ["known", None, list(INCLUDE)],
        "answers": ["answers", *REQUESTS],
        "forgotten": ["forget"],
        "found again": ["known", None, list(INCLUDE)],
        "forgotten again": ["forget"],
        "natively": ["install", list(INCLUDE)],
        "in target": ["install", [DIVERTER]],
        "audit": ["run", "dpkg", "--audit"],
        "verify": ["run", "dpkg", "--verify"],
        "later": ["compare", str(full), [*EXPLAINED, MARKS, "etc/apt/apt.conf"]],
        "capability": ["run", "getcap", "/usr/bin/mtr-packet"],
        "automatic": ["run", "apt-mark", "showauto"],
        "upgrade": ["upgrade"],
        "remove": ["install", [], [DIVERTER, "vim-tiny"]],
        "audit again": ["run", "dpkg", "--audit"],
        "verify again": ["run", "dpkg", "--verify"],
        "diversions": ["run", "dpkg-divert", "--list", "*molly*"],
        "files": ["run", "sh", "-c", "ls /usr/sbin/halt* /usr/bin/vim.tiny 2>&-; readlink -f /usr/bin/awk"],
        "lower again": ["lower"],
    }
    values = dict(zip(steps, drive(person, *steps.values()), strict=True))
    assert values["at first"] == []
    assert values["known"] == [values["found again"][0], 0]
    assert values["found again"][1] == 2
    assert values["answers"] == [True] * len(REQUESTS)
    assert values["foreseen"] == [values[step]["all"] for step in ("natively", "in target", "upgrade", "remove")]
    assert set(INCLUDE) <= set(values["natively"]["install"])
    assert values["natively"]["notes"] == []
    assert values["in target"]["install"] == [DIVERTER]
    assert "molly-guard" in values["in target"]["notes"][0]
    assert values["later"] == []
    assert values["capability"] == [0, "/usr/bin/mtr-packet cap_net_raw=ep"]
    assert set(values["automatic"][1].split()) == set(values["natively"]["install"]) - set(INCLUDE)
    assert [values["upgrade"][kind] for kind in ("install", "upgrade", "remove")] == [[], [], []]
    assert set(values["remove"]["remove"]) == {DIVERTER, "vim-tiny"}
    for name in ("audit", "verify", "audit again", "verify again", "diversions"):
        assert values[name] == [0, ""], name
    assert values["files"][1].split() == ["/usr/sbin/halt", "/usr/bin/gawk"]
    assert values["lower again"] == values["lower"]


def test_kernel_tables_and_initramfs_are_those_of_the_plain_programs(person: Person) -> None:
    tables = ["digests", "usr/lib/modules/*/modules.*"]
    copied = ["digests", "srv/usr/lib/modules/*/modules.*"]
    epoch = "1000000000"
    kernel = "$(ls /usr/lib/modules)"
    steps: dict[str, list[Any]] = {
        "bootstrap": ["bootstrap", request()],
        "ahead": ["ahead", ["linux-image-cloud-amd64"]],
        "sources": ["sources", {"etc/apt/sources.list": f"deb {MIRROR} trixie main\n"}],
        "install": ["install", ["linux-image-cloud-amd64"]],
        "tables": tables,
        "remove tables": ["run", "sh", "-c", "rm /usr/lib/modules/*/modules.dep*"],
        "plainly": ["run", "sh", "-c", f"depmod {kernel}"],
        "plain tables": tables,
        "initramfs": ["initramfs"],
        "plain initramfs": ["run", "env", f"SOURCE_DATE_EPOCH={epoch}", "update-initramfs", "-u", "-k", "all"],
        "made plainly": ["digests", "boot/initrd.img-*"],
        "a part": [
            "run",
            "sh",
            "-c",
            f"mkdir -p /srv/usr/lib/modules/{kernel}; ln -s usr/lib /srv/lib; cd /usr/lib/modules/{kernel};"
            f" cp -r --parents kernel/net/ipv* modules.order modules.builtin* /srv/usr/lib/modules/{kernel}",
        ],
        "version": ["run", "sh", "-c", f"printf %s {kernel}"],
    }
    values = dict(zip(steps, drive(person, *steps.values(), SOURCE_DATE_EPOCH=epoch), strict=True))
    assert values["install"]["notes"] == []
    assert len(values["tables"]) > 10
    assert values["tables"] == values["plain tables"]
    assert values["plain initramfs"][0] == 0
    made, carried_out = values["initramfs"]
    assert carried_out > 3
    assert len(made) == 1
    assert made == values["made plainly"]
    version = values["version"][1]
    part = ["-a", "-b", "/srv", version]
    foreign = f"cp $(find /usr/lib/modules/{version} -name 8021q.ko.xz) /usr/lib/modules/{version}/foreign.ko.xz"
    more: dict[str, list[Any]] = {
        **{name: steps[name] for name in ("bootstrap", "sources", "install", "a part")},
        "tables": tables,
        "whole": ["depmod", version],
        "tables again": tables,
        "of a part": ["depmod", *part],
        "its tables": copied,
        "of a part plainly": ["run", "depmod", *part],
        "its plain tables": copied,
        "other words": ["depmod", "-n", version],
        "foreign": ["run", "sh", "-c", foreign],
        "with it": ["depmod", version],
        "tables with it": tables,
        "plainly with it": ["run", "depmod", version],
        "plain tables with it": tables,
        "left": ["run", "sh", "-c", "ls -A /dev/shm; ls -l /usr/sbin/depmod"],
    }
    values = dict(zip(more, drive(person, *more.values()), strict=True))
    assert values["whole"] == [0, 1]
    assert values["tables again"] == values["tables"]
    assert values["of a part"] == [0, 1]
    assert len(values["its tables"]) > 10
    assert values["its tables"] == values["its plain tables"]
    assert values["other words"] == [0, 0]
    assert values["with it"] == [0, 0]
    assert values["tables with it"] == values["plain tables with it"] != values["tables"]
    assert "kmod" in values["left"][1].splitlines()[-1]
    assert "dibble" not in values["left"][1]


def test_a_root_of_the_release_before_is_merged_from_the_start(ourselves: Person, public_directory: Path) -> None:
    theirs = _reference(public_directory / "bookworm.tar", suite="bookworm", hooks="merged-usr")
    names, audit, found = drive(
        ourselves,
        ["bootstrap", request("bookworm")],
        ["run", "dpkg", "--audit"],
        ["compare", str(theirs), [*EXPLAINED, MARKS]],
    )
    assert {"usr-is-merged", "usrmerge"} & {name.split()[0] for name in names} == {"usr-is-merged"}
    assert audit == [0, ""]
    assert found == []


def test_each_release_resolves_from_its_signed_lists(ourselves: Person) -> None:
    suites = ("bookworm", "forky", "sid")
    values = drive(ourselves, *(step for suite in suites for step in (["decide", request(suite)], ["repositories"])))
    for suite, names, state in zip(suites, values[::2], values[1::2], strict=True):
        assert len(names) > 60
        assert {"apt", "base-files", "dpkg", "libc6"} <= {name.split()[0] for name in names}
        assert [repository[:2] for repository in state] == [[MIRROR, suite]]
        assert len(state[0][2]) == 64


def test_lists_that_somebody_changed_on_the_way_are_refused(ourselves: Person, tmp_path: Path) -> None:
    with urlopen(f"{MIRROR}/dists/trixie/InRelease", timeout=60) as answer:
        signed: bytes = answer.read()
    folder = tmp_path / "dists/trixie"
    folder.mkdir(parents=True)
    (folder / "InRelease").write_bytes(signed.replace(b"Origin: Debian", b"Origin: Debiam", 1))
    with served(tmp_path) as mirror:
        refusal, others = drive(
            ourselves,
            ["refused", "decide", request(mirror=mirror)],
            ["refused", "decide", {**request(), "mirrors": [mirror, MIRROR]}],  # no reason to go on to the next mirror
        )
    for error in (refusal, others):
        assert error["kind"] == "SignatureError"
        assert f"{mirror} trixie" in error["message"]
        assert "--unsigned" in error["hint"]


def test_a_mirror_that_does_not_answer_is_named_and_the_next_one_asked(ourselves: Person) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        silent = f"http://127.0.0.1:{unused.getsockname()[1]}"
        nowhere = "http://mirror.invalid/debian"
        refused, unknown, names = drive(
            ourselves,
            ["refused", "decide", request(mirror=silent)],
            ["refused", "decide", request(mirror=nowhere)],
            ["decide", {**request(), "mirrors": [silent, MIRROR]}],
        )
    assert refused["kind"] == unknown["kind"] == "FetchError"
    assert f"{silent} does not answer" in refused["message"]
    assert f"{nowhere} does not answer" in unknown["message"]
    assert len(names) > 60


def test_what_no_suite_has_is_named(ourselves: Person) -> None:
    package, suite = drive(
        ourselves,
        ["refused", "decide", request(include=["openssh-servr", "vim-tiny"])],
        ["refused", "decide", request("trixxie")],
    )
    assert package["kind"] == "NoSuchPackage"
    assert '"openssh-servr"' in package["message"]
    assert "trixie" in package["message"]
    assert "openssh-server" in package["hint"]
    assert suite["kind"] == "NoSuchSuite"
    assert f'{MIRROR} has no suite "trixxie"' in suite["message"]
