"""Programs of other architectures: how they are known, and when they cannot be run."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from dibble.errors import HostError, UsageError
from dibble.sandbox import binfmt, enter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit

REGISTERED = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@pytest.mark.parametrize("arch", sorted(binfmt.MACHINES))
def test_the_smallest_program_is_one_segment_that_begins_with_its_code(arch: str) -> None:
    data, machine = binfmt.program(arch), binfmt.MACHINES[arch]
    wide = machine.bits == 64
    assert data[:7] == b"\x7fELF" + bytes([2 if wide else 1, 1 if machine.little else 2, 1])
    word = "Q" if wide else "I"
    kind, number, _, entry, table = struct.unpack_from(f"{machine.order}HHI{word}{word}", data, 16)
    assert (kind, number) == (2, machine.machine)
    fields = struct.unpack_from(f"{machine.order}{'IIQQQQQQ' if wide else 'IIIIIIII'}", data, table)
    offset, address, size = fields[2 if wide else 1], fields[3 if wide else 2], fields[5 if wide else 4]
    assert size == len(data)
    assert data[entry - address + offset :] == machine.leave


def test_a_rule_says_what_the_kernel_documents() -> None:
    head, _, rest = binfmt.rule("arm64", "/tools/qemu-aarch64").partition(":M::")
    assert head == ":dibble-arm64"
    magic, mask, interpreter, flags = rest.split(":")
    assert bytes.fromhex(magic.replace("\\x", "")).hex() == "7f454c460201010000000000000000000200b700"
    assert bytes.fromhex(mask.replace("\\x", "")).hex() == "ffffffffffffff00fffffffffffffffffeffffff"
    assert (interpreter, flags) == ("/tools/qemu-aarch64", "FPC")


@pytest.mark.parametrize("arch", sorted(binfmt.MACHINES))
def test_a_rule_is_for_the_programs_of_its_architecture_alone(arch: str) -> None:
    _, _, rest = binfmt.rule(arch, "/q").partition(":M::")
    magic, mask = (bytes.fromhex(text.replace("\\x", "")) for text in rest.split(":")[:2])

    def fits(other: str) -> bool:
        return all(byte & m == wanted & m for byte, wanted, m in zip(binfmt.program(other), magic, mask, strict=False))

    same = {other for other in binfmt.MACHINES if fits(other)}
    assert same == ({"armel", "armhf"} if arch in ("armel", "armhf") else {arch})


def test_an_unknown_architecture_is_told() -> None:
    with pytest.raises(UsageError, match='unknown architecture "arm65"') as caught:
        binfmt.known("arm65")
    assert "arm64" in str(caught.value.hint)


@pytest.fixture
def without_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that gives a build no binfmt_misc of its own; the directory stands for what the host has."""

    def refused(_main: Callable[[], bool]) -> bool:
        return False

    monkeypatch.setattr(enter, "run_in_namespace", refused)
    monkeypatch.setattr(binfmt, "_HOST", tmp_path)
    return tmp_path


def test_what_the_host_has_registered_serves(without_own: Path) -> None:
    (without_own / "status").write_text("enabled\n")
    (without_own / "qemu-aarch64").write_text(REGISTERED.format(flags="POCF"))
    binfmt.check_can_run("arm64")


@pytest.mark.parametrize("text", [REGISTERED.format(flags="P"), REGISTERED.format(flags="F").replace("en", "dis", 1)])
def test_what_does_not_work_in_a_chroot_is_none(without_own: Path, text: str) -> None:
    (without_own / "qemu-aarch64").write_text(text)
    with pytest.raises(HostError, match="cannot run programs of arm64") as caught:
        binfmt.check_can_run("arm64")
    assert "qemu-user-static" in str(caught.value.hint)
