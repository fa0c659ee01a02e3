"""One boot of an image in QEMU: does it come up, let somebody in, run commands, and go down in good order?

Firmware, boot loaders and kernels that give up say so on the serial line; who reads it need not wait for the time
limit. Nothing here prints: the caller gets lines as they come, and a result.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING

from dibble.errors import BootError, UsageError
from dibble.evidence import image_head, qemu
from dibble.evidence.guest_shell import LOGIN_PROMPT, CommandResult, GuestShell, Login, check_command, log_in
from dibble.evidence.hardware import PLAIN, Hardware, check_hardware
from dibble.evidence.metadata import BY_NETWORK, Settings, with_settings
from dibble.evidence.serial import Console, SerialClosed, SerialTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

_FIRMWARE = {
    "amd64": ("bios", "uefi"),
    "i386": ("bios", "uefi"),
    "arm64": ("uefi", "u-boot"),
    "armhf": ("uefi", "u-boot"),
    "ppc64el": ("slof",),
    "riscv64": ("uefi",),
}
"""Architecture of a machine → what may start it."""

POWER_OFF_S = 120.0
"""Seconds that a guest gets to shut down; systemd itself waits 90 s for a service that does not stop."""

_HUNG_S = 30.0
"""The same for one that did not come up, or no longer answers."""

_SHOWN_LINES = 15
_SHOWN_WIDTH = 200
_NUDGE_S = 10.0
_KERNEL = re.compile(r"Linux version \d")
# Debian's initramfs; cryptsetup(8); systemd-ask-password(1), by which dracut asks too.
_PASSPHRASE = re.compile(r"Please unlock disk [^\n:]+: |(?i:enter passphrase for) [^\n]+?(?:: ?|\))")
_WRONG_PASSPHRASE = re.compile(r"No key available with this passphrase|bad password or options|Incorrect passphrase")

# What a machine says that will not come up → the sentence for it, and the mend.
_GIVEN_UP: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"No bootable device"),
        "the BIOS finds nothing to boot on the disk",
        "is the image made for UEFI? Then use --firmware uefi; else give it a boot loader (element bootloader)",
    ),
    (
        re.compile(r"BdsDxe: No bootable option or device was found|(?m:^)Shell> "),
        "the UEFI firmware finds nothing to boot on the disk",
        "is the image made for BIOS? Then use --firmware bios; else it lacks EFI/BOOT/BOOT*.EFI in its ESP",
    ),
    (
        re.compile(r"(?m)^=> "),
        "U-Boot finds nothing to boot on the disk",
        "does a file system that it reads have extlinux/extlinux.conf (DIB_BOOTLOADER=extlinux, element bootloader)?",
    ),
    (
        re.compile(r"E3407: Load failed|Type 'boot' and press return to continue booting the system"),
        "the Open Firmware finds nothing to boot on the disk",
        "does the disk have a PReP partition with a boot loader (elements block-device-gpt and bootloader)?",
    ),
    (
        re.compile(r"(?m)^grub(?: rescue)?> "),
        "GRUB finds no configuration",
        "look at what it says above; does the UUID in its configuration belong to the image's boot file system?",
    ),
    (
        re.compile(r"Kernel panic - not syncing[^\n]*\n"),
        "the kernel panicked",
        "look at what it says above; \"Unable to mount root fs\" means a wrong root= or a missing driver or initrd",
    ),
    (
        re.compile(r"(?m)^\(initramfs\) |dracut:/# "),
        "the initrd cannot find the root file system",
        "does root= on the kernel's command line name the image's root file system?",
    ),
    (
        re.compile(r"You are in (?:emergency|rescue) mode"),
        "the guest came up in emergency mode only",
        "look at which unit failed above; often it is a line of /etc/fstab that names no device of the image",
    ),
)  # fmt: skip

# UEFI's words for a program that no key of its variables has signed (EDK II: BdsDxe), and systemd-boot's.
_REFUSED = re.compile(r": (?:Access [Dd]enied|Security [Vv]iolation)$", re.MULTILINE)
_NOT_SIGNED = (
    "the firmware refuses what is on the disk: none of its keys for Secure Boot has signed it",
    "sign the image by the key whose certificate is in the db of those variables (dibble build --secure-boot-key"
    " KEY --secure-boot-cert CERT), or boot it without --uefi-variables",
)


@dataclass(frozen=True, slots=True)
class BootRequest:
    """What is asked for. None stands for "find out" (architecture, firmware) or "none".

    `timeout_s` counts up to the prompt, and again for each command.
    """

    image: Path
    initrd: Path | None = None
    """For an image that is a kernel, which is started without a disk."""
    more_disks: tuple[Path, ...] = ()
    """Disks beside the one that it starts from."""
    append: str = ""
    """For the kernel's command line, after the console; only where the image is a kernel."""
    arch: qemu.Arch | None = None
    firmware: image_head.FirmwareKind | None = None
    uefi_variables: Path | None = None
    """The firmware's variables, with the keys of Secure Boot in them; a copy of the file is used."""
    memory_mib: int = 1024
    cpus: int = 1
    network: bool = True
    writable: bool = False
    marker: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    """Typed whenever the guest asks for that of an encrypted disk."""
    login: Login | None = None
    commands: tuple[str, ...] = ()
    timeout_s: float = 300.0
    hardware: Hardware = PLAIN
    settings: Settings | None = None
    """What the guest is told of itself, and by which kind of source; None: nothing."""


@dataclass(frozen=True, slots=True)
class BootResult:
    """How it went. `seconds` since QEMU's start, by name: output, kernel, unlock (a passphrase was typed), prompt,
    shell, end; only what came.

    `powered_off` is None when nobody asked the guest to. `failure` is what kept the boot from going on.
    """

    arch: str
    firmware: str
    accelerator: qemu.Accelerator
    seconds: dict[str, float] = field(default_factory=dict)
    commands: tuple[CommandResult, ...] = ()
    powered_off: bool | None = None
    last_lines: tuple[str, ...] = ()
    failure: BootError | None = None

    @property
    def ok(self) -> bool:
        """The prompt came, and every command ended with 0."""
        return self.failure is None and all(command.status == 0 for command in self.commands)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where boots happen. `scratch` is a directory for one boot, which the tools see and may write to.

    `kvm` is /dev/kvm, open; None for QEMU to open it itself. `accelerator` settles the choice, else KVM is tried.
    """

    toolbox: Toolbox
    scratch: Path
    host_arch: str
    kvm: int | None = None
    accelerator: qemu.Accelerator | None = None


def arch_of(request: BootRequest, bench: Bench) -> qemu.Arch:
    """The architecture asked for, or what the image tells, or the machine's own. Raises BootError, ToolFailed."""
    told = None if _is_kernel(request) else _look(request.image, bench)[2]
    return request.arch or told or _known(bench.host_arch) or "amd64"


def _look(image: Path, bench: Bench) -> tuple[str, image_head.Partitions, qemu.Arch | None]:
    """The image's format, its partitions (none for a CD), and the architecture that they tell."""
    head = image_head.read_head(image)
    image_format = image_head.format_of(head, image)
    if image_format != "raw":
        head = image_head.disk_head(image, image_format, bench.toolbox, bench.scratch)
    partitions = image_head.Partitions("none") if image_head.is_cd(head) else image_head.partitions_of(head)
    return image_format, partitions, _known(image_head.arch_for(partitions))


def guest_for(request: BootRequest, bench: Bench) -> qemu.Guest:
    """Look at the image and decide what machine it gets. Raises BootError, ToolFailed."""
    if _is_kernel(request):
        return _direct_guest(request, bench)
    image_format, partitions, _ = _look(request.image, bench)
    arch = arch_of(request, bench)
    wanted = "uefi" if request.uefi_variables else request.firmware
    firmware = wanted or image_head.firmware_for(partitions, arch)
    if firmware not in _FIRMWARE[arch]:
        raise BootError(
            f"{arch} machines have no {firmware.upper()}", hint=f"boot with --firmware {_FIRMWARE[arch][0]}"
        )
    return qemu.Guest(
        arch=arch,
        image=bench.toolbox.path(request.image),
        image_format=image_format,
        accelerator=accelerator_for(arch, bench),
        memory_mib=request.memory_mib,
        cpus=request.cpus,
        flash=_flash(request, arch, bench) if firmware == "uefi" else None,
        u_boot=qemu.u_boot_for(arch, bench.toolbox) if firmware == "u-boot" else "",
        network=request.network,
        writable=request.writable,
        hardware=_hardware(request, bench),
        is_cd=image_head.is_cd(image_head.read_head(request.image)),
        more_disks=tuple((bench.toolbox.path(disk), _format(disk)) for disk in request.more_disks),
    )


def _format(disk: Path) -> str:
    return image_head.format_of(image_head.read_head(disk), disk)


def _flash(request: BootRequest, arch: qemu.Arch, bench: Bench) -> qemu.Flash:
    if request.uefi_variables is not None:
        return qemu.secure_flash_for(arch, request.uefi_variables, bench.toolbox, bench.scratch)
    return qemu.flash_for(arch, bench.toolbox, bench.scratch)


def _hardware(request: BootRequest, bench: Bench) -> Hardware:
    if request.settings is None:
        return request.hardware
    return with_settings(request.hardware, request.settings, bench.toolbox, bench.scratch)


def _is_kernel(request: BootRequest) -> bool:
    return request.initrd is not None or image_head.is_kernel(image_head.read_head(request.image))


def _direct_guest(request: BootRequest, bench: Bench) -> qemu.Guest:
    arch = arch_of(request, bench)
    uefi = request.firmware == "uefi" or request.uefi_variables is not None
    return qemu.Guest(
        arch=arch,
        image=bench.toolbox.path(request.image),
        image_format="kernel",
        accelerator=accelerator_for(arch, bench),
        memory_mib=request.memory_mib,
        cpus=request.cpus,
        flash=_flash(request, arch, bench) if uefi else None,
        network=request.network,
        direct=qemu.Direct(bench.toolbox.path(request.initrd) if request.initrd else None, request.append),
        hardware=_hardware(request, bench),
    )


def _known(arch: str | None) -> qemu.Arch | None:
    return next((known for known in qemu.ARCHITECTURES if known == arch), None)


def accelerator_for(arch: qemu.Arch, bench: Bench) -> qemu.Accelerator:
    """The accelerator that was settled, else KVM where a guest really runs with it, else TCG."""
    if bench.accelerator is not None:
        return bench.accelerator
    if not qemu.can_accelerate(arch, bench.host_arch):
        return qemu.Accelerator("tcg", f"this machine is not for {arch}")
    return qemu.probe_kvm(arch, bench.kvm, bench.toolbox, bench.scratch)


def boot(
    request: BootRequest,
    bench: Bench,
    *,
    guest: qemu.Guest | None = None,
    on_line: Callable[[str], None] | None = None,
    on_command: Callable[[CommandResult], None] | None = None,
    log: IO[bytes] | None = None,
) -> BootResult:
    """Boot the image and do what is asked for. The image stays as it is, unless `writable`.

    `on_line` gets the serial line's text by lines, `log` its bytes, `on_command` every command that has ended. Raises
    DibbleError for what is wrong before QEMU runs; what goes wrong from there on is the result's `failure`.
    """
    guest = guest or guest_for(request, bench)
    with qemu.started(guest, bench.toolbox, bench.scratch, bench.kvm) as running:
        console = Console(running.serial, on_line=on_line, log=log)
        test = _Boot(request, running, console, on_command)
        result = BootResult(guest.arch, guest.firmware, guest.accelerator)
        failure = None
        try:
            test.go()
        except BootError as error:
            failure = error
        except SerialClosed:
            failure = test.ended()
        except SerialTimeout:
            failure = test.too_slow()
        powered_off = test.power_off(failed=failure is not None)
        console.show_rest()
        test.note("end")
        if console.first_byte_at is not None:
            test.seconds["output"] = round(console.first_byte_at - test.began, 2)
    return replace(
        result,
        seconds=dict(sorted(test.seconds.items(), key=lambda item: item[1])),
        commands=tuple(test.done),
        powered_off=powered_off,
        last_lines=tuple(console.last_lines(_SHOWN_LINES)),
        failure=failure,
    )


class _Boot:
    """The course of one boot, and how far it got."""

    def __init__(
        self,
        request: BootRequest,
        running: qemu.RunningGuest,
        console: Console,
        on_command: Callable[[CommandResult], None] | None,
    ) -> None:
        self._request = request
        self._running = running
        self._console = console
        self._on_command = on_command
        self._shell: GuestShell | None = None
        self._waiting_for = ""
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.done: list[CommandResult] = []

    def note(self, what: str) -> None:
        """Keep the moment; in hundredths of a second, which is more than a boot repeats to."""
        self.seconds[what] = round(time.monotonic() - self.began, 2)

    def go(self) -> None:
        """All of it but the end. Raises BootError, SerialTimeout, SerialClosed."""
        request = self._request
        deadline = self.began + request.timeout_s
        prompt = re.compile(LOGIN_PROMPT)
        self._wait_for(prompt if request.marker is None else re.compile(re.escape(request.marker)), deadline)
        self.note("prompt")
        if request.login is None:
            return
        if request.marker is not None:
            self._nudge(prompt, deadline)
        self._waiting_for = f"a shell for {request.login.user}"
        self._shell = log_in(self._console, request.login, time.monotonic() + request.timeout_s)
        self.note("shell")
        for command in request.commands:
            self._waiting_for = f"the end of the command {command!r}"
            result = self._shell.run(command, request.timeout_s)
            self.done.append(result)
            if self._on_command is not None:
                self._on_command(result)

    def _wait_for(self, wanted: re.Pattern[str], deadline: float) -> None:
        request = self._request
        marker = request.marker
        self._waiting_for = "the login prompt" if marker is None else f"the text {marker!r}"
        given_up = [pattern for pattern, _, _ in _GIVEN_UP]
        patterns = [wanted, *given_up, _PASSPHRASE, _WRONG_PASSPHRASE, _KERNEL]
        while True:
            index = self._console.expect(patterns, deadline).index
            if index == 0:
                return
            if patterns[index] in (_PASSPHRASE, _WRONG_PASSPHRASE):
                self._unlock(refused=patterns[index] is _WRONG_PASSPHRASE)
                continue
            if index <= len(_GIVEN_UP):
                self._console.read_until_quiet(0.5, 2.0)  # what it says about it
                _, sentence, hint = _GIVEN_UP[index - 1]
                if request.uefi_variables is not None and _REFUSED.search(self._console.text):
                    sentence, hint = _NOT_SIGNED
                raise BootError(sentence + self._shown(), hint=hint)
            self.note("kernel")
            patterns.remove(_KERNEL)

    def _unlock(self, *, refused: bool) -> None:
        hint = "write it into a file and give that with --passphrase-file"
        if refused:
            raise BootError("the encrypted disk does not open with the passphrase" + self._shown(), hint=hint)
        if self._request.passphrase is None:
            raise BootError("the guest asks for the passphrase of an encrypted disk", hint=hint)
        self._console.send(self._request.passphrase + "\n")
        self.note("unlock")

    def _nudge(self, prompt: re.Pattern[str], deadline: float) -> None:
        """Wait for the login prompt, which may have passed by before the marker; an empty line brings it again."""
        self._waiting_for = "the login prompt"
        while True:
            with contextlib.suppress(SerialTimeout):
                self._console.expect([prompt], min(deadline, time.monotonic() + _NUDGE_S))
                return
            if time.monotonic() >= deadline:
                raise SerialTimeout
            self._console.send("\n")

    def power_off(self, *, failed: bool) -> bool | None:
        """Let the guest go down by itself; whether it did, None where it need not.

        It need not when nothing that it has written stays and nobody is logged in: it is switched off then.
        """
        writable = self._request.writable
        if not writable and (failed or self._shell is None):
            return None
        limit_s = _HUNG_S if failed else POWER_OFF_S
        deadline = time.monotonic() + limit_s
        asked = False
        if self._shell is not None and not failed:
            try:
                asked = self._shell.power_off(limit_s)
            except SerialClosed:
                asked = True
            except SerialTimeout:
                return False
        if not asked:
            self._running.press_power_button()
        return self._console.read_to_end(deadline) and self._running.process.wait(10.0) == 0

    def ended(self) -> BootError:
        """The serial line was closed: QEMU has ended, by itself or with the guest."""
        status = self._running.process.wait(10.0)
        said = self._running.said
        if qemu.STOPPED_BY_KVM in said:
            return BootError(
                f"KVM cannot run this guest's code ({said.splitlines()[0]})", hint="boot it with --accel tcg"
            )
        if status:
            hint = "with --accel tcg it needs nothing of this machine; --memory asks for less of it"
            if "lock" in said:
                hint = "another program has the image open and may write to it: end that one"
            return BootError(f"QEMU ended with status {status}: {said or 'it says nothing'}", hint=hint)
        return BootError(
            f"the guest ended or restarted itself while dibble waited for {self._waiting_for}{self._shown()}",
            hint="look at what it says last; the whole serial line is kept with --serial-log FILE",
        )

    def too_slow(self) -> BootError:
        """The time limit passed."""
        limit = f"{self._request.timeout_s:g} s"
        if self._console.first_byte_at is None:
            return BootError(
                f"the guest said nothing on its serial line for {limit}",
                hint="does the image have its boot loader and kernel use the serial console (console=ttyS0, on Arm"
                " ttyAMA0), and does --firmware suit it?",
            )
        hint = "give a slow machine more time: --timeout SECONDS"
        if "kernel" not in self.seconds:
            hint += "; if the guest did come up, its kernel lacks console=ttyS0 (Arm: ttyAMA0)"
        return BootError(f"{self._waiting_for} did not come within {limit}{self._shown()}", hint=hint)

    def _shown(self) -> str:
        lines = self._console.last_lines(_SHOWN_LINES)
        return (
            "; the serial line's last lines:\n" + "\n".join(f"    {line[:_SHOWN_WIDTH]}" for line in lines)
            if lines
            else ""
        )


def _check_more_disks(request: BootRequest, kernel: bool) -> None:
    for disk in request.more_disks:
        if not disk.is_file():
            raise UsageError(f"there is no disk {disk}", hint="give the path of a disk image (raw or qcow2)")
    if request.more_disks and kernel:
        raise UsageError("a kernel is started without a disk", hint="leave --disk out")


def check_request(request: BootRequest) -> None:
    """Raise UsageError or BootError for what can be told without starting anything."""
    if not request.image.is_file():
        raise UsageError(f"there is no image {request.image}", hint="give the path of a disk image (raw or qcow2)")
    if request.initrd is not None and not request.initrd.is_file():
        raise UsageError(f"there is no initial ramdisk {request.initrd}", hint="give the path of NAME.initramfs")
    kernel = _is_kernel(request)
    _check_more_disks(request, kernel)
    if request.append and not kernel:
        raise UsageError(
            "a disk's boot loader has the kernel's command line", hint="--append is for an IMAGE that is a kernel"
        )
    if request.writable and image_head.is_cd(image_head.read_head(request.image)):
        raise UsageError("nothing is written to a CD", hint="leave --writable out")
    if request.writable and kernel:
        raise UsageError("a kernel has no disk to write to", hint="leave --writable out")
    if request.commands and request.login is None:
        raise UsageError("commands need somebody who runs them", hint="give --login USER, and --password if it has one")
    check_hardware(request.hardware)
    if request.settings is not None and not request.network and request.settings.kind in BY_NETWORK:
        raise UsageError("the guest asks for its settings over the network", hint="leave --no-network out")
    if request.uefi_variables is not None and request.firmware in ("bios", "u-boot"):
        hint = "leave --firmware or --uefi-variables out"
        raise UsageError(f"{request.firmware.upper()} has no variables of UEFI", hint=hint)
    if request.marker == "":
        raise UsageError("the marker is empty", hint="give --marker a text that the guest says when it is up")
    for command in request.commands:
        check_command(command)
