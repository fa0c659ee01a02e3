"""Programs of another architecture, run through qemu-user by a binfmt_misc of the build's own.

Since Linux 6.7 a user namespace can have its own instance of binfmt_misc; nothing is registered on the host, and it is
gone with the namespace. Where that cannot be, what the host has registered serves, if it opens its interpreter at once.
Source: kernel, Documentation/admin-guide/binfmt-misc.rst; elf(5).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import HostError, NotSupported
from dibble.sandbox.process import host_environment, run
from dibble.sandbox.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOST = Path("/proc/sys/fs/binfmt_misc")


@dataclass(frozen=True, slots=True)
class Machine:
    """How ELF files of an architecture look, and what runs them.

    `emulator` is qemu-user's name for it; `machine` and `flags` are e_machine and e_flags (elf(5); the processor
    supplements of the System V ABI); `leave` is machine code that ends a process with status 0.
    """

    emulator: str
    machine: int
    leave: bytes
    bits: int = 64
    little: bool = True
    flags: int = 0

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


def _code(order: str, *words: int) -> bytes:
    return struct.pack(f"{order}{len(words)}I", *words)


MACHINES = {
    "amd64": Machine("x86_64", 62, bytes.fromhex("31ff b83c000000 0f05")),
    "arm64": Machine("aarch64", 183, _code("<", 0xD2800000, 0xD2800BA8, 0xD4000001)),
    "armel": Machine("arm", 40, _code("<", 0xE3A00000, 0xE3A07001, 0xEF000000), 32, flags=0x05000200),
    "armhf": Machine("arm", 40, _code("<", 0xE3A00000, 0xE3A07001, 0xEF000000), 32, flags=0x05000400),
    "i386": Machine("i386", 3, bytes.fromhex("31db b801000000 cd80"), 32),
    "loong64": Machine("loongarch64", 258, _code("<", 0x02800004, 0x0281740B, 0x002B0000), flags=0x43),
    "mips64el": Machine("mips64el", 8, _code("<", 0x24040000, 0x240213C2, 0x0000000C), flags=0x80000000),
    "powerpc": Machine("ppc", 20, _code(">", 0x38600000, 0x38000001, 0x44000002), 32, little=False),
    "ppc64": Machine("ppc64", 21, _code(">", 0x38600000, 0x38000001, 0x44000002), little=False, flags=2),
    "ppc64el": Machine("ppc64le", 21, _code("<", 0x38600000, 0x38000001, 0x44000002), flags=2),
    "riscv64": Machine("riscv64", 243, _code("<", 0x00000513, 0x05D00893, 0x00000073), flags=5),
    "s390x": Machine("s390x", 22, bytes.fromhex("a7290000 0a01"), little=False),
}
"""By Debian's name of the architecture."""

NATIVE = {
    "x86_64": ("amd64", "i386"),
    "aarch64": ("arm64",),
    "ppc64le": ("ppc64el",),
    "riscv64": ("riscv64",),
    "s390x": ("s390x",),
    "loongarch64": ("loong64",),
}
"""By `uname -m`: the architectures whose programs a machine runs itself."""


def is_foreign(arch: str) -> bool:
    """Whether this machine needs an emulator for programs of `arch`."""
    return arch not in NATIVE.get(os.uname().machine, (arch,))


def known(arch: str) -> Machine:
    """Raises UsageError for an architecture that nothing here can run."""
    try:
        return MACHINES[arch]
    except KeyError as error:
        from dibble.registry import unknown

        raise unknown("architecture", arch, sorted(MACHINES)) from error


def program(arch: str) -> bytes:
    """The smallest program of an architecture: it ends well. Raises UsageError."""
    machine = known(arch)
    order, wide = machine.order, machine.bits == 64
    header_size, entry_size = (64, 56) if wide else (52, 32)
    address = 0x400000
    start = header_size + entry_size
    size = start + len(machine.leave)
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if machine.little else 2, 1]) + bytes(9)
    word = "Q" if wide else "I"
    header = struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(2, machine.machine, 1, address + start, header_size, 0, machine.flags),  # 2: ET_EXEC
        *(header_size, entry_size, 1, 0, 0, 0),
    )
    if wide:
        segment = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, address, address, size, size, 0x10000)  # PT_LOAD, r-x
    else:
        segment = struct.pack(f"{order}IIIIIIII", 1, 0, address, address, size, size, 5, 0x10000)
    return identity + header + segment + machine.leave


def rule(arch: str, interpreter: str) -> str:
    """What is written to `register`: programs of `arch`, whatever their OS ABI, are run by `interpreter`.

    F opens the interpreter now, by its path here and not in the target; P keeps the caller's argv[0]; C lets programs
    that set user ids do so.
    """
    machine = known(arch)
    magic = b"\x7fELF" + bytes([machine.bits // 32, 1 if machine.little else 2, 1]) + bytes(9)
    magic += struct.pack(f"{machine.order}HH", 2, machine.machine)
    mask = bytearray(b"\xff" * len(magic))
    mask[7] = 0  # EI_OSABI
    mask[16 if machine.little else 17] = 0xFE  # ET_EXEC is 2, ET_DYN 3
    return f":dibble-{arch}:M::{_escaped(magic)}:{_escaped(bytes(mask))}:{interpreter}:FPC"


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def check_can_run(arch: str) -> None:
    """Raises HostError where nothing lets programs of `arch` run in a build, as told from outside a namespace.

    Nothing is registered or fetched for that.
    """
    from dibble.sandbox.enter import run_in_namespace

    known(arch)
    if run_in_namespace(_has_own):
        return
    if _on_host(arch) is None:
        raise _cannot(arch)


def enable(arch: str, interpreter: Path, scratch: Path) -> None:
    """Let programs of `arch` run in this namespace; `scratch` is a new directory that is kept while they do.

    Raises HostError when they do not.
    """
    try:
        scratch.mkdir()
        mount("binfmt_misc", scratch, "binfmt_misc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        if _on_host(arch) is None:
            raise _cannot(arch) from error
    else:
        try:
            (scratch / "register").write_text(rule(arch, str(interpreter)))
        except OSError as error:
            raise HostError(
                f"cannot let programs of {arch} be run by {interpreter}: {error.strerror}", hint=_AGAIN
            ) from error
    _try(arch, interpreter, scratch.with_name(f"{scratch.name}-{arch}"))


_AGAIN = "look for damage in the cache: dibble cache verify --repair"


def _try(arch: str, interpreter: Path, place: Path) -> None:
    place.write_bytes(program(arch))
    place.chmod(0o755)
    try:
        done = run([str(place)], env=host_environment(), check=False)
    except (OSError, HostError) as error:
        raise HostError(f"no program of {arch} can be run here: {error}", hint=_AGAIN) from error
    finally:
        place.unlink()
    if done.status:
        host = _on_host(arch)
        broken = host if host and not interpreter.exists() else interpreter
        raise HostError(
            f"a program of {arch} that only has to end ended with status {done.status} when {broken} ran it",
            hint=_AGAIN,
        )


def _has_own() -> bool:
    """Whether a user namespace can have its own binfmt_misc."""
    try:
        mount("binfmt_misc", "/mnt", "binfmt_misc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        return error.errno == errno.ENOENT  # no such directory: the kind was known
    return True


def _on_host(arch: str) -> str | None:
    """The interpreter that the host has registered so that it works in a chroot, too."""
    machine = known(arch)
    magic = (b"\x7fELF" + bytes([machine.bits // 32, 1 if machine.little else 2])).hex()
    number = struct.pack(f"{machine.order}H", machine.machine).hex()
    for fields in _registered():
        found = fields.get("magic", "")
        if found.startswith(magic) and found[36:40] == number and "F" in fields.get("flags:", ""):
            return fields.get("interpreter")
    return None


def _registered() -> Iterator[dict[str, str]]:
    try:
        entries = [path for path in _HOST.iterdir() if path.name not in ("register", "status")]
    except OSError:
        return
    for path in entries:
        lines = path.read_text("utf-8", "replace").splitlines()
        if lines[:1] == ["enabled"]:
            yield {name: value for name, _, value in (line.partition(" ") for line in lines[1:])}


def _cannot(arch: str) -> HostError:
    release = os.uname().release
    return NotSupported(
        f"this machine cannot run programs of {arch}: Linux {release} gives a build no binfmt_misc of its own (6.7 has"
        " it), and the host has nothing registered that works in a chroot",
        hint=f"install qemu-user-static, which registers qemu-{known(arch).emulator} (Debian, Ubuntu: apt-get install"
        " qemu-user-static binfmt-support), or build on a newer kernel",
    )
