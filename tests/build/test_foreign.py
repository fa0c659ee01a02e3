"""Roots of other architectures, whose scripts are run by an emulator and this machine's own tools."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.build.test_apt_engine import EXPLAINED, drive, request

from dibble.errors import HostError
from dibble.events import Events
from dibble.sandbox import binfmt
from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.tools import ToolsTree

if TYPE_CHECKING:
    from tests.people import Person

pytestmark = pytest.mark.build

RANDOM = {"etc/machine-id", "var/lib/dbus/machine-id", "var/cache/ldconfig/aux-cache"}
# What a root is like in which much goes on: users, alternatives, triggers, perl, tmpfiles.
INCLUDE = ["adduser", "ca-certificates", "cron", "dbus", "kmod", "openssl", "perl", "procps", "systemd-sysv"]


def test_programs_of_every_architecture_run(test_cache: Path, tmp_path: Path) -> None:
    def run() -> list[str]:
        emulators = ToolsTree(test_cache, Events()).ensure("qemu-user")[0] / "usr/bin"
        foreign = [arch for arch in binfmt.MACHINES if binfmt.is_foreign(arch)]
        for arch in foreign:
            binfmt.enable(arch, emulators / f"qemu-{binfmt.known(arch).emulator}", tmp_path / arch)
        return foreign

    assert {"arm64", "armhf", "ppc64el", "riscv64", "s390x"} <= set(run_in_namespace(run))


def test_an_emulator_that_does_not_work_is_told(test_cache: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copy("/bin/false", tmp_path / "qemu-aarch64"))
    with pytest.raises(HostError, match=r"a program of arm64 .* when .*qemu-aarch64 ran it"):
        run_in_namespace(lambda: binfmt.enable("arm64", broken, tmp_path / "binfmt"))


def test_the_machines_own_tools_make_the_same_root_as_emulated_ones(ourselves: Person, ordinary_user: Person) -> None:
    begin = ["bootstrap", request(include=INCLUDE)]
    _, used, quick, strange, audit = drive(
        ordinary_user, begin, ["native_programs"], ["listing"], ["programs", "amd64"], ["run", "dpkg", "--audit"],
        TREE_ARCH="arm64",
    )  # fmt: skip
    assert used > 150
    assert strange == []
    assert audit == [0, ""]
    _, emulated = drive(ourselves, begin, ["listing"], TREE_ARCH="arm64", TREE_EMULATED="1")
    differ = {path for path in quick.keys() | emulated.keys() if quick.get(path) != emulated.get(path)}
    assert {path for path in differ if path not in RANDOM and not path.startswith(tuple(EXPLAINED))} == set()
