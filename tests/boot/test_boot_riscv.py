"""A disk for RISC-V: UEFI starts GRUB from the path that it tries by itself, and GRUB finds its menu on the root.

A whole system takes three minutes to come up under emulation; the menu is there after seconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements
from tests.standins.debs import files_of

from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.tools import host_arch
from dibble.store.places import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the shell of the tree is this machine's"),
]

SAID = "is read by GRUB of riscv64-efi"
# The element bootloader needs more of a system than this; so the menu is written here.
SYSTEM = """#!/bin/bash
set -eu
mkdir -p "$TARGET_ROOT/boot/grub"
cp -r {grub} "$TARGET_ROOT/usr/lib/grub"
cat > "$TARGET_ROOT/boot/grub/grub.cfg" << 'END'
set timeout=0
menuentry riscv {{
    echo "The menu on $root is read by GRUB of $grub_cpu-$grub_platform"
    sleep 600
}}
END
"""


def test_uefi_starts_grub_which_reads_its_menu(ourselves: Person) -> None:
    def inside() -> Path:
        return files_of(open_store(ourselves.cache), "riscv64", "grub-efi-riscv64-bin", "trixie")

    place = ourselves.directory("boot-riscv")
    elements = SmallElements(ourselves, place)
    grub = run_in_namespace(inside) / "usr/lib/grub"
    elements.script("small/root.d/20-riscv", SYSTEM.format(grub=grub), whole=True)
    words = ("-n", "-a", "riscv64", "-t", "qcow2", "-o", "riscv", "small", "block-device-efi")
    elements.run("build", *words, DIB_BOOTLOADER="grub")
    expected = ("-a", "riscv64", "--marker", SAID, "--json")
    done = ourselves.dibble("boot", place / "riscv.qcow2", *expected, timeout=600)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["ok"], result["arch"], result["firmware"]) == (True, "riscv64", "uefi")
