"""Fedora out of packages: signed ones of a stand-in, put in place by an ordinary user's build, boot and are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, boot
from tests.standins import redhat
from tests.standins.mirror import mirror as served_mirror

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.boot

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend",
    "packages": "rpm -q kernel dnf NetworkManager hostname",
    "keys": "rpm -qa gpg-pubkey | wc -l",
    "whole": "sudo rpm -Va --nomtime | grep -v ' c '",
    "asked for": "dnf repoquery --userinstalled --qf '%{name}' --disablerepo='*' | sort | tr '\\n' ' '",
    "repository": "grep ^baseurl /etc/yum.repos.d/fedora.repo",
}
# What scripts, elements and systemd change on purpose; times later than that of the build are set to that.
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/etc/machine-id", "/var/log/journal"}


@pytest.fixture(scope="module")
def mirror(test_cache: Path, ordinary_user: Person) -> Iterator[dict[str, str]]:
    """The variables with which a build finds a stand-in for Fedora, and its key."""
    distribution = redhat.fedora(arch=host_arch())
    ordinary_user.directory("fedora")
    with served_mirror(distribution, test_cache, ordinary_user) as variables:
        yield variables | {"DIB_RELEASE": distribution.system.version, "DIB_DEV_USER_PASSWORD": PASSWORD}


def test_packages_that_another_key_has_signed_are_refused_with_both_keys(
    ordinary_user: Person, mirror: dict[str, str]
) -> None:
    folder = ordinary_user.home / "fedora"
    wrong = folder / "wrong.gpg"
    distrusted = ordinary_user.checkout / "src/dibble/packages/keys"
    wrong.write_bytes(next(distrusted.glob("4D64FEC*.asc")).read_bytes())
    env = ordinary_user.environment(**mirror | {"DIB_YUM_MINIMAL_KEYS": str(wrong)})
    done = ordinary_user.dibble("build", "-t", "tar", "-o", "never", "fedora-minimal", cwd=folder, env=env, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "which is not trusted" in said
    assert "4D64FEC119C2029067D6E791F8D2585B8783D481 (Debian Stable Release Key" in said
    assert "DIB_YUM_MINIMAL_KEYS=FILE" in said
    assert not (folder / "never.tar").exists()


def test_fedora_boots_and_its_packages_are_whole(ordinary_user: Person, mirror: dict[str, str]) -> None:
    folder = ordinary_user.home / "fedora"
    env = ordinary_user.environment(**mirror)
    recipe = str(ordinary_user.checkout / announced.RECIPE)
    words = ("-p", "file,diffutils", recipe, "fedora-minimal", "vm")
    ordinary_user.dibble("build", "-o", "fedora", *words, cwd=folder, env=env, timeout=1800)
    _, printed = boot(ordinary_user, folder / "fedora.qcow2", announced.USER, COMMANDS | announced.COMMANDS)
    announced.check(printed, "Fedora")
    assert printed["state"].strip() == "running", printed["failed"]
    assert "is not installed" not in printed["packages"]
    assert printed["keys"].strip() == "1"
    changed = {line.split()[-1] for line in printed["whole"].splitlines() if line.strip()}
    assert changed <= CHANGED
    wanted = printed["asked for"].split()
    assert {"diffutils", "file", "kernel"} <= set(wanted)
    assert "glibc-common" not in wanted
    assert mirror["DIB_DISTRIBUTION_MIRROR"] in printed["repository"]
