"""Elements that other projects have on PyPI, as pip installs them: they resolve, and build where they can."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests import people

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
    "overcloud-partition-uefi": r"overcloud-partition-uefi/block-device-default\.yaml:35:3: unknown disk node \"lvm\"",
}
"""Those that cannot be used, with what is said of them: dibble writes no LVM."""
GLEAN = "1.25.1"
ELEMENTS = (
    *("ironic-ramdisk-base", "burn-in"),
    *("iptables", "network-gateway", "pip-manifest", "os-svc-install", "enable-packages-install", "interface-names"),
)
"""For Debian, and made of Debian's packages and of PyPI alone. The agent itself is in git."""


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
