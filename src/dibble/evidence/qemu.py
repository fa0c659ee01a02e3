"""QEMU: its command line from values, and starting it with the guest's serial line in our hands.

The serial line and QEMU's own control line (QMP) are socket pairs, handed over as open descriptors: nothing listens
anywhere, and both end with the guest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dibble.errors import BootError
from dibble.evidence import kvm_probe
from dibble.evidence.hardware import (
    PLAIN,
    Hardware,
    another_disk_arguments,
    disk_arguments,
    network_arguments,
    settings_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.sandbox.process import Running
    from dibble.sandbox.toolbox import Toolbox

Arch = Literal["amd64", "i386", "arm64", "armhf", "ppc64el", "riscv64"]
ARCHITECTURES: tuple[Arch, ...] = ("amd64", "i386", "arm64", "armhf", "ppc64el", "riscv64")

PROBE_S = 3.0
"""Seconds within which a guest under KVM must have said something; it takes some 50 ms."""
_LOOK_S = 0.05
STOPPED_BY_KVM = "KVM internal error"
"""What QEMU says when it stops a guest because KVM could not go on."""

_ACCELERATED = {"amd64": ("amd64", "i386"), "arm64": ("arm64",)}
"""Architecture of the machine → guests that KVM can run there."""

_PROGRAMS = {
    "amd64": "qemu-system-x86_64",
    "i386": "qemu-system-x86_64",
    "arm64": "qemu-system-aarch64",
    "armhf": "qemu-system-arm",
    "ppc64el": "qemu-system-ppc64",
    "riscv64": "qemu-system-riscv64",
}
# A fifth level of page tables costs 5 % of a boot, and pointer keys on arm64's max more; Debian's ppc64el wants POWER8
# at least.
_EMULATED_CPU = {
    "amd64": "max,-la57",
    "i386": "max,-la57",
    "arm64": "cortex-a57",
    "armhf": "cortex-a15",
    "ppc64el": "power9",
    "riscv64": "rv64",
}

_CONSOLES = {
    "amd64": "ttyS0,115200",
    "i386": "ttyS0,115200",
    "arm64": "ttyAMA0",
    "armhf": "ttyAMA0",
    "ppc64el": "hvc0",
    "riscv64": "ttyS0,115200",
}
"""The kernel's names of the machines' first serial line."""

# Code and variables of the UEFI firmware, where distributions put them; Debian's, which is the tools tree's, first.
_UEFI: dict[str, tuple[tuple[str, str], ...]] = {
    "amd64": (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ),
    "arm64": (
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"),
        ("/usr/share/qemu/aavmf-aarch64-code.bin", "/usr/share/qemu/aavmf-aarch64-vars.bin"),
    ),
    "armhf": (
        ("/usr/share/AAVMF/AAVMF32_CODE.fd", "/usr/share/AAVMF/AAVMF32_VARS.fd"),
        ("/usr/share/edk2/arm/QEMU_EFI-pflash.raw", "/usr/share/edk2/arm/vars-template-pflash.raw"),
        ("/usr/share/qemu/aavmf-aarch32-code.bin", "/usr/share/qemu/aavmf-aarch32-vars.bin"),
    ),
    "riscv64": (
        ("/usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd", "/usr/share/qemu-efi-riscv64/RISCV_VIRT_VARS.fd"),
        ("/usr/share/edk2/riscv/RISCV_VIRT_CODE.fd", "/usr/share/edk2/riscv/RISCV_VIRT_VARS.fd"),
    ),
}

_NO_UEFI = {
    "i386": "boot with --firmware bios, or with --arch amd64 if the image is for that",
    "arm64": "install it (Debian: qemu-efi-aarch64), or boot with --firmware u-boot",
    "armhf": "install it (Debian: qemu-efi-arm), or boot with --firmware u-boot",
    "riscv64": "install it (Debian: qemu-efi-riscv64)",
}
"""What to do where there is no UEFI firmware for a guest."""

U_BOOT = {"arm64": "/usr/lib/u-boot/qemu_arm64/u-boot.bin", "armhf": "/usr/lib/u-boot/qemu_arm/u-boot.bin"}
"""U-Boot for QEMU's machines, where Debian's u-boot-qemu puts it. That for PCs has no driver for any disk of ours."""

# Code that knows Secure Boot. It is built for system management mode, in which alone the variables can be written.
_SECURE_CODE = (
    "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
    "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
    "/usr/share/qemu/ovmf-x86_64-smm-code.bin",
)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What runs the guest's code. `reason` says why it is not KVM; `device` is how QEMU opens /dev/kvm."""

    name: Literal["kvm", "tcg"]
    reason: str = ""
    device: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        if self.name == "tcg":
            return ("-accel", "tcg,thread=multi")
        return ("-accel", f"kvm,device={self.device}" if self.device else "kvm")


@dataclass(frozen=True, slots=True)
class Flash:
    """The UEFI firmware's two parts, as the tools name them: code, which is only read, and this guest's variables."""

    code: str
    variables: str
    secure: bool = False
    """Whether the code checks signatures, and lets nobody but itself write the variables."""


@dataclass(frozen=True, slots=True)
class Direct:
    """What QEMU starts a kernel with, without a boot loader: an initial ramdisk, as the tools see it, if there is one,
    and a command line."""

    initrd: str | None = None
    append: str = ""


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine to start. `image` is a path as the tools see it; without `flash` the firmware is the BIOS.

    With `direct`, the image is a kernel and there is no disk.
    """

    arch: Arch
    image: str
    image_format: str
    accelerator: Accelerator
    memory_mib: int
    cpus: int
    flash: Flash | None = None
    network: bool = True
    writable: bool = False
    direct: Direct | None = None
    hardware: Hardware = PLAIN
    is_cd: bool = False
    u_boot: str = ""
    """U-Boot, in place of the machine's own firmware."""
    more_disks: tuple[tuple[str, str], ...] = ()
    """Path and format of disks behind the first one, in their order."""

    @property
    def firmware(self) -> str:
        """bios, uefi, slof or u-boot."""
        if self.u_boot:
            return "u-boot"
        if self.arch == "ppc64el":
            return "slof"
        return "uefi" if self.flash else "bios"


def command_line(guest: Guest, *, serial: int, control: int) -> tuple[str, ...]:
    """The arguments that start `guest`; `serial` and `control` are open sockets that QEMU inherits.

    Without `writable`, what the guest writes goes to a nameless file in TMPDIR and ends with it.
    """
    return (
        _PROGRAMS[guest.arch],
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", _machine(guest)),
        *guest.accelerator.arguments,
        *("-cpu", "host" if guest.accelerator.name == "kvm" else _EMULATED_CPU[guest.arch]),
        *("-smp", str(guest.cpus), "-m", str(guest.memory_mib)),
        *_firmware(guest),
        *_boot_from(guest),
        *settings_arguments(guest.hardware),
        *(network_arguments(guest.hardware) if guest.network else ("-nic", "none")),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=serial,fd={serial}", "-serial", "chardev:serial"),
        *("-chardev", f"socket,id=control,fd={control}", "-mon", "chardev=control,mode=control"),
    )


def _machine(guest: Guest) -> str:
    if guest.arch == "arm64":
        # KVM offers what interrupt controller the machine has, version 2 or 3.
        return "virt,gic-version=max" if guest.accelerator.name == "kvm" else "virt"
    if guest.arch == "armhf":
        # A kernel without LPAE, as Debian's armmp, reaches nothing of PCI above 4 GiB.
        return "virt,highmem=off"
    if guest.arch == "ppc64el":
        # Its firmware, SLOF, is part of QEMU. TCG has nothing against what these are there for, and would say so.
        return "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken"
    if guest.arch == "riscv64":
        return "virt"  # QEMU starts OpenSBI by itself, and that what is in the flash, or the kernel
    secure = ",smm=on" if guest.flash and guest.flash.secure else ""
    return f"q35,graphics=off{secure}"  # graphics=off: SeaBIOS, and GRUB through it, talk on the serial line


def _firmware(guest: Guest) -> tuple[str, ...]:
    if guest.u_boot:
        return ("-bios", guest.u_boot)
    if guest.flash is None:
        return ()
    return (
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={escaped(guest.flash.code)}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={escaped(guest.flash.variables)}"),
        # A disk without a boot loader is to be told at once, not after minutes of asking the network for one.
        *("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"),
        *("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"),
        # What OVMF's README asks for with system management mode.
        *(("-global", "driver=cfi.pflash01,property=secure,value=on") if guest.flash.secure else ()),
        *(("-global", "ICH9-LPC.disable_s3=1") if guest.flash.secure else ()),
    )


def _boot_from(guest: Guest) -> tuple[str, ...]:
    if guest.direct is None:
        first = ("-drive", _disk(guest), *disk_arguments(guest.hardware, is_cd=guest.is_cd))
        return (*first, *_more_disks(guest))
    # These take a path as it is, commas and all.
    append = f"console={_CONSOLES[guest.arch]} {guest.direct.append}".strip()
    initrd = ("-initrd", guest.direct.initrd) if guest.direct.initrd else ()
    return ("-kernel", guest.image, *initrd, "-append", append)


def _disk(guest: Guest) -> str:
    protection = ",media=cdrom,readonly=on" if guest.is_cd else _protection(guest)
    return f"if=none,id=disk,format={guest.image_format}{protection},file={escaped(guest.image)}"


def _more_disks(guest: Guest) -> tuple[str, ...]:
    words: list[str] = []
    for number, (path, image_format) in enumerate(guest.more_disks, 1):
        drive = f"if=none,id=disk{number},format={image_format}{_protection(guest)},file={escaped(path)}"
        words += ["-drive", drive, *another_disk_arguments(guest.hardware, f"disk{number}", number)]
    return tuple(words)


def _protection(guest: Guest) -> str:
    return "" if guest.writable else ",snapshot=on"


def escaped(value: str) -> str:
    """A value inside QEMU's comma-separated options."""
    return value.replace(",", ",,")


def flash_for(arch: Arch, toolbox: Toolbox, scratch: Path) -> Flash:
    """The UEFI firmware among the tools, with a private copy of its variables in `scratch`.

    Raises BootError where there is none.
    """
    root = toolbox.root or Path("/")
    for code, variables in _UEFI.get(arch, ()):
        template = root / variables.lstrip("/")
        if (root / code.lstrip("/")).is_file() and template.is_file():
            copy = scratch / "uefi-variables"
            shutil.copyfile(template, copy)
            return Flash(code, toolbox.path(copy))
    raise BootError(
        f"there is no UEFI firmware for {arch} among the tools",
        hint=_NO_UEFI.get(arch, "install it (Debian: ovmf), or boot with --firmware bios"),
    )


def u_boot_for(arch: Arch, toolbox: Toolbox) -> str:
    """U-Boot among the tools. Raises BootError where there is none."""
    path = U_BOOT.get(arch)
    if path is None or not ((toolbox.root or Path("/")) / path.lstrip("/")).is_file():
        raise BootError(f"there is no U-Boot for {arch} among the tools", hint="install it (Debian: u-boot-qemu)")
    return path


def secure_flash_for(arch: Arch, variables: Path, toolbox: Toolbox, scratch: Path) -> Flash:
    """The UEFI firmware that checks signatures by the keys in a file of variables, of which the guest gets a copy.

    Raises BootError where there is none, or the file cannot be read.
    """
    root = toolbox.root or Path("/")
    code = next((name for name in _SECURE_CODE if (root / name.lstrip("/")).is_file()), None)
    if arch != "amd64" or code is None:
        raise BootError(
            f"there is no UEFI firmware with Secure Boot for {arch} among the tools",
            hint="boot without --uefi-variables" if arch != "amd64" else "install it (Debian: ovmf)",
        )
    copy = scratch / "uefi-variables"
    try:
        shutil.copyfile(variables, copy)
    except OSError as error:
        raise BootError(f"cannot read the UEFI variables {variables}: {error.strerror}") from error
    copy.chmod(0o600)
    return Flash(code, toolbox.path(copy), secure=True)


def can_accelerate(guest_arch: str, host_arch: str) -> bool:
    """Whether KVM on such a machine can run such guests at all."""
    return guest_arch in _ACCELERATED.get(host_arch, ())


def tools_group(guest_arch: str, host_arch: str) -> str:
    """The group of tools that has QEMU and firmware for such guests."""
    if can_accelerate(guest_arch, host_arch):
        return "qemu-system"
    return f"qemu-system-{'amd64' if guest_arch == 'i386' else guest_arch}"


def probe_command_line(
    arch: Arch, accelerator: Accelerator, *, output: int, code: str = "", kernel: str = ""
) -> tuple[str, ...]:
    """The smallest guest that says something: `kernel` (kvm_probe.py), on arm64 its UEFI firmware `code`; no disk."""
    common = ("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", *accelerator.arguments)
    machine: tuple[str, ...]
    channel = ("-cpu", "host", "-chardev", f"socket,id=output,fd={output}")
    if arch == "arm64":
        flash = f"if=pflash,unit=0,format=raw,readonly=on,file={escaped(code)}"
        machine = ("-machine", "virt,gic-version=max", "-m", "256", "-drive", flash, "-serial", "chardev:output")
    else:
        port = f"isa-debugcon,iobase={kvm_probe.PORT:#x},chardev=output"
        machine = ("-machine", "pc", "-m", "32", "-device", port, "-kernel", kernel)
    return (_PROGRAMS[arch], *common, *channel, *machine)


def probe_kvm(arch: Arch, kvm: int | None, toolbox: Toolbox, scratch: Path) -> Accelerator:
    """KVM when a guest really runs with it, else TCG with the reason; takes at most PROBE_S seconds.

    `kvm` is /dev/kvm, open for reading and writing. That the device is there says little: inside other virtual
    machines it may refuse, or start a guest that never runs.
    """
    device = "" if kvm is None else "/dev/fdset/1"
    accelerator = Accelerator("kvm", device=device)
    code = flash_for(arch, toolbox, scratch).code if arch == "arm64" else ""
    kernel = scratch / "kvm-probe"
    kernel.write_bytes(kvm_probe.KERNEL)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            output, path = theirs.fileno(), toolbox.path(kernel)
            words = probe_command_line(arch, accelerator, output=output, code=code, kernel=path)
            argv = [*words, *kvm_arguments(kvm)]
            process, said = _spawn(argv, toolbox, scratch, [theirs.fileno(), *([] if kvm is None else [kvm])])
        with process:
            deadline = time.monotonic() + PROBE_S
            while not (ready := select.select([ours], [], [], _LOOK_S)[0]) and time.monotonic() < deadline:
                if STOPPED_BY_KVM in said.read_text("utf-8", "replace"):
                    break
            if ready and ours.recv(1):
                return accelerator
            if ready:
                process.wait(1.0)
    lines = said.read_text("utf-8", "replace").strip().splitlines()
    if not lines and not ready:
        return Accelerator("tcg", f"a guest started with KVM says nothing for {PROBE_S:.0f} s")
    return Accelerator("tcg", f"KVM does not run guests here: {lines[0] if lines else 'QEMU ended'}")


def kvm_arguments(kvm: int | None) -> tuple[str, ...]:
    """Hands the open /dev/kvm over, which the sandbox's user may have no right to open."""
    return () if kvm is None else ("-add-fd", f"fd={kvm},set=1")


class RunningGuest:
    """A started guest. The owner reads and writes `serial`."""

    def __init__(self, process: Running, serial: socket.socket, control: socket.socket, said: Path) -> None:
        self.process = process
        self.serial = serial
        self._control = control
        self._said = said

    @property
    def said(self) -> str:
        """What QEMU itself printed: warnings and errors."""
        return self._said.read_text("utf-8", "replace").strip()

    def press_power_button(self) -> None:
        """Ask the guest to shut down, as the button of a real machine does (ACPI)."""
        with contextlib.suppress(OSError):  # it has just ended
            self._control.sendall(b'{"execute":"system_powerdown"}\n')


@contextlib.contextmanager
def started(guest: Guest, toolbox: Toolbox, scratch: Path, kvm: int | None) -> Iterator[RunningGuest]:
    """Start a guest; it is gone at the end of the block. `scratch` takes what it writes, without `writable`."""
    with contextlib.ExitStack() as stack:
        serial, guests_serial = socket.socketpair()
        control, guests_control = socket.socketpair()
        stack.enter_context(serial)
        stack.enter_context(control)
        with guests_serial, guests_control:
            descriptors = [guests_serial.fileno(), guests_control.fileno()]
            argv = command_line(guest, serial=descriptors[0], control=descriptors[1])
            if guest.accelerator.name == "kvm" and kvm is not None:
                argv += kvm_arguments(kvm)
                descriptors.append(kvm)
            process, said = _spawn(argv, toolbox, scratch, descriptors)
        stack.enter_context(process)
        threading.Thread(target=_end_when_stopped, args=(control,), daemon=True).start()
        yield RunningGuest(process, serial, control, said)


def _end_when_stopped(control: socket.socket) -> None:
    """End a guest that QEMU has stopped: nothing lets it go on. KVM stops one whose code it cannot run.

    The protocol is QMP (QEMU's docs/interop/qmp-spec.rst): a line of JSON for each event.
    """
    with contextlib.suppress(OSError), control.makefile("rb") as lines:
        control.sendall(b'{"execute":"qmp_capabilities"}\n')
        for line in lines:
            if json.loads(line).get("event") == "STOP":
                control.sendall(b'{"execute":"quit"}\n')


def _spawn(argv: Sequence[str], toolbox: Toolbox, scratch: Path, descriptors: Sequence[int]) -> tuple[Running, Path]:
    """Start QEMU, with its messages going to a file."""
    said = scratch / f"qemu-{len(list(scratch.iterdir()))}.log"
    with said.open("wb") as output:
        environment = {"TMPDIR": toolbox.path(scratch)}
        process = toolbox.spawn(argv, env=environment, output_file=output, pass_fds=descriptors)
    return process, said


def default_cpus() -> int:
    """Two where the machine has them: systemd starts services side by side, more only wait."""
    return min(2, os.cpu_count() or 1)
