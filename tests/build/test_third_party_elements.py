"""Elements that other projects have on PyPI, as pip installs them: they resolve, and build where they can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests import people

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

RELEASES = ("ironic-python-agent-builder==7.4.0", "tripleo-image-elements==15.0.0")
PLACES = ("share/ironic-python-agent-builder/dib", "share/tripleo-image-elements")
"""Below pip's `--target`."""
NUMBER = 23
"""Elements in these releases."""
REFUSED = {
    "overcloud-partition-uefi": r"/block-device-default\.yaml:48:17: lv \"lv_thinpool\" is thin",
}
"""Those that cannot be used, with what is said of them."""
GLEAN = "1.25.1"
ELEMENTS = (
    *("ironic-ramdisk-base", "burn-in"),
    *("iptables", "network-gateway", "pip-manifest", "os-svc-install", "enable-packages-install", "interface-names"),
)
"""For Debian, and made of Debian's packages and of PyPI alone. The agent itself is in git."""
AGENT = "13.0.0"
FOR_THE_IMAGE = (
    *("--only-binary=:all:", "--python-version", "3.13", "--implementation", "cp"),
    *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64", "--platform", "any"),
)
"""Wheels for the Python of Debian 13, whichever runs the tests."""
TO_BUILD = ("pbr==7.0.3", "setuptools==80.9.0", f"glean=={GLEAN}")


@pytest.fixture(scope="module")
def person() -> Person:
    return people.ourselves()


@pytest.fixture(scope="module")
def installed(person: Person) -> list[Path]:
    place = person.directory("third-parties")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), *RELEASES]
    subprocess.run(pip, check=True)
    return [place / name for name in PLACES]


def environment(person: Person, installed: list[Path], **variables: str) -> dict[str, str]:
    return person.environment(ELEMENTS_PATH=os.pathsep.join(map(str, installed)), DIB_RELEASE="trixie", **variables)


def test_every_element_resolves_or_says_why_not(person: Person, installed: list[Path]) -> None:
    names = sorted(
        path.name for place in installed for path in place.iterdir() if path.is_dir() and path.name[0] != "_"
    )
    assert len(names) == NUMBER
    env = environment(person, installed)
    for name in names:
        done = person.dibble("plan", "-n", "debian-minimal", name, cwd=installed[0], env=env, check=False)
        reason = REFUSED.get(name)
        assert (done.returncode == 0) == (reason is None), f"{name}: {done.stderr}"
        assert "Traceback" not in done.stderr
        if reason:
            assert re.search(reason, done.stderr), done.stderr


@pytest.fixture(scope="module")
def built(person: Person, installed: list[Path], debian_packages: None) -> Path:
    """The directory of an image; glean comes from a mirror of PyPI that holds nothing else."""
    index = person.cache / "pypi/mirror/glean"
    index.mkdir(parents=True, exist_ok=True)
    if not list(index.glob(f"glean-{GLEAN}-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(index)]
        subprocess.run([*pip, f"glean=={GLEAN}"], check=True)
    (index / "index.html").write_text("".join(f'<a href="{p.name}">{p.name}</a>\n' for p in index.glob("*.whl")))
    env = environment(
        person,
        installed,
        DIB_INSTALLTYPE_simple_init="package",
        DIB_INSTALLTYPE_pip_and_virtualenv="package",
        DIB_NO_PYPI_PIP="1",
        DIB_IPA_COMPRESS_CMD="gzip -1",
        IPA_DISTRO_FAMILY="debian",  # which the agent's own element sets
    )
    place = person.directory("third-parties-image")
    words = ("disk-image-create", "-o", "agent", "-t", "tar", "debian-minimal", "pypi", "simple-init", *ELEMENTS)
    person.dibble(*words, cwd=place, env=env, timeout=1800)
    return place


def test_elements_of_others_build_with_debian_and_pypi_alone(built: Path) -> None:
    left = {path.name for path in built.iterdir()}
    assert {"agent.kernel", "agent.initramfs", "agent.tar"} <= left
    assert (built / "agent.kernel").read_bytes()[0x202:0x206] == b"HdrS"
    with tarfile.open(built / "agent.tar") as archive:
        names = {os.path.normpath(name) for name in archive.getnames()}
    assert {"opt/glean/bin/glean", "usr/bin/fio", "usr/bin/stress-ng", "usr/sbin/iptables"} <= names
    assert "usr/local/bin/os-svc-install" in names
    listed = subprocess.run(
        ["bash", "-o", "pipefail", "-c", "gzip -dc agent.initramfs | cpio --list --quiet"],
        cwd=built,
        check=True,
        capture_output=True,
        text=True,
    )
    found = {name.removeprefix("./") for name in listed.stdout.splitlines()}
    assert {"init", "sbin", "etc/fstab", "opt/glean/bin/glean", "usr/bin/fio"} <= found
    assert not [name for name in found if name.startswith(("boot/", "usr/share/doc/"))]


def repository(place: Path) -> str:
    """Commit what is in a directory to a git repository there; its address."""
    for words in (
        ("init", "--quiet", "--initial-branch=master"),
        ("add", "--force", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "all"),
    ):
        subprocess.run(["git", "-C", place, "-c", f"safe.directory={place}", *words], check=True)
    return f"file://{place}"


@pytest.mark.skipif(host_arch() != "amd64", reason="the wheels are amd64's")
def test_a_ramdisk_with_ironics_agent_is_made_and_the_agent_starts(
    person: Person, installed: list[Path], debian_packages: None
) -> None:
    """The agent's release on PyPI, put into git, stands in for its repository; so does a list of versions."""
    place = person.directory("third-parties-agent")
    pip = [sys.executable, "-m", "pip", "download", "--quiet"]
    wheels = person.cache / "pypi" / "-".join(("agent", AGENT, *TO_BUILD))
    if not wheels.is_dir():
        command = [*pip, *FOR_THE_IMAGE, "--dest", str(wheels), f"ironic-python-agent=={AGENT}", *TO_BUILD]
        subprocess.run(command, check=True)
        command = [*pip, "--no-deps", "--no-binary=:all:", "--dest", str(wheels), f"ironic-python-agent=={AGENT}"]
        subprocess.run(command, check=True)
    limits = []
    for wheel in wheels.glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        index = person.cache / "pypi/mirror" / re.sub(r"[-_.]+", "-", name).lower()
        index.mkdir(parents=True, exist_ok=True)
        (index / wheel.name).write_bytes(wheel.read_bytes())
        links = (f'<a href="{one.name}">{one.name}</a>\n' for one in index.glob("*.whl"))
        (index / "index.html").write_text("".join(links))
        if name != "ironic_python_agent":
            limits.append(f"{name}==={version}\n")
    with tarfile.open(next(wheels.glob("*.tar.gz"))) as sources:
        sources.extractall(place, filter="data")
    (agent,) = place.iterdir()
    os.chown(agent, person.uid, person.gid)
    (place / "requirements").mkdir()
    (place / "requirements/upper-constraints.txt").write_text("".join(sorted(limits)))
    env = environment(
        person,
        installed,
        DIB_INSTALLTYPE_simple_init="package",
        DIB_NO_PYPI_PIP="1",
        DIB_IPA_COMPRESS_CMD="gzip -1",
        DIB_REPOLOCATION_ironic_python_agent=repository(agent),
        DIB_REPOLOCATION_requirements=repository(place / "requirements"),
        WHEELS_OF_TEST=" ".join((AGENT, *TO_BUILD)),  # nothing else tells that there is another mirror
    )
    words = ("-o", "agent", "-t", "raw", "debian-minimal", "pypi", "ironic-python-agent-ramdisk")
    person.dibble("disk-image-create", *words, cwd=place, env=env, timeout=1800)
    assert {"agent.kernel", "agent.initramfs"} <= {path.name for path in place.iterdir()}
    assert not (place / "agent.raw").exists()
    ask = ("ironic-python-agent --help; systemctl is-enabled ironic-python-agent.service systemd-networkd.service",)
    done = person.dibble("shell", *words, "--", "bash", "-euc", *ask, cwd=place, env=env)
    assert "--advertise_host" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["enabled", "enabled"]
    # its networkd looks after interfaces whose names begin with en: systemd may give them
    names = ("test", "!", "-e", "/etc/systemd/network/99-default.link")
    person.dibble("shell", *words, "--", *names, cwd=place, env=env)
    shutil.rmtree(place)
