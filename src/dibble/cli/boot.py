"""`dibble boot`: an image in QEMU, up to its login prompt and further, with nothing of it changed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from dibble.errors import BootError, DibbleError, OutputError, UsageError
from dibble.recipe.load import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.events import Events
    from dibble.evidence.boot_test import Bench, BootRequest, BootResult
    from dibble.evidence.guest_shell import CommandResult
    from dibble.evidence.hardware import Hardware
    from dibble.evidence.metadata import Settings
    from dibble.evidence.qemu import Accelerator

KVM = Path("/dev/kvm")
_MOMENTS = {
    "output": "first output",
    "kernel": "kernel",
    "unlock": "disk unlocked",
    "prompt": "prompt",
    "shell": "logged in",
    "end": "end",
}


@click.command(
    name="boot",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Boot an image in QEMU and see it come up.",
)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--initrd", type=click.Path(path_type=Path), metavar="FILE", help="For an IMAGE that is a kernel.")
@click.option("--append", default="", metavar="TEXT", help="For the command line of an IMAGE that is a kernel.")
@click.option(
    "--disk", "disks", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="One more disk image, such as another one of the same build; several allowed.",
)  # fmt: skip
@click.option(
    "--firmware", type=click.Choice(["auto", "bios", "uefi", "slof", "u-boot"]), default="auto",
    help="Default: by the image; never u-boot.",
)  # fmt: skip
@click.option(
    "-a",
    "--arch",
    type=click.Choice(["auto", "amd64", "i386", "arm64", "armhf", "ppc64el", "riscv64"]),
    default="auto",
    help="Default: by the image.",
)
@click.option(
    "--uefi-variables", type=click.Path(path_type=Path), metavar="FILE",
    help="Boot with Secure Boot by the keys in FILE, OVMF's variables (element bootloader). FILE stays as it is.",
)  # fmt: skip
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", help="Default: KVM if it works.")
@click.option("--memory", "memory_mib", type=click.IntRange(min=32), default=1024, metavar="MIB", show_default=True)
@click.option("--cpus", type=click.IntRange(min=1), metavar="NUMBER", help="Default: 2, or what this machine has.")
@click.option("--no-network", is_flag=True, help="No network card.")
@click.option("--writable", is_flag=True, help="Let the guest write to the image; else what it writes is dropped.")
@click.option("--marker", metavar="TEXT", help="Wait for this text instead of a login prompt.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=300.0, metavar="SECONDS",
    show_default=True, help="For the prompt, and again for each command.",
)  # fmt: skip
@click.option(
    "--login", "user", metavar="USER", help="Log in when the prompt comes, and shut the guest down at the end."
)
@click.option("--password", metavar="TEXT", help="The user's password; without, none must be asked for.")
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), metavar="FILE", help="Its line opens encrypted disks."
)
@click.option("--command", "commands", multiple=True, metavar="COMMAND", help="Run it in the guest; several allowed.")
@click.option("--environment", metavar="NAME", help="Devices and source of settings as there: openstack, ec2, vmware …")
@click.option(
    "--metadata",
    metavar="KIND",
    help="Settings come so: nocloud, config-drive, openstack, ec2, gce, ovf, azure, or none.",
)
@click.option(
    "--user-data", type=click.Path(path_type=Path), metavar="FILE", help="For cloud-init; default: the user of --login."
)
@click.option("--hostname", metavar="NAME", default="dibble-guest", show_default=True, help="With --metadata.")
@click.option("--ssh-key", type=click.Path(path_type=Path), metavar="FILE", help="Public key of the user.")
@click.option("--interactive", is_flag=True, help="Connect this terminal to the serial line; Ctrl-] ends it.")
@click.option("--serial-log", type=click.Path(path_type=Path), metavar="FILE", help="Keep all of the serial line.")
@click.option("-x", "--verbose", is_flag=True, help="Show the serial line as it comes, on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines; the last one is the result.")
@click.option("--tools", type=click.Choice(["tree", "host"]), default="tree", help="Whose QEMU; default: dibble's own.")
@click.option("--offline", is_flag=True, help="Use only what is in the cache.")
def boot(image: Path, **options: Any) -> int:
    """Boot IMAGE (raw, qcow2 …, or a kernel) in QEMU and wait for its login prompt.

    Ends with 0 when the prompt came and every command ended with 0. The image is not changed, unless --writable.

    \b
    dibble boot image.qcow2
    dibble boot image.qcow2 --login devuser --password x --command 'systemctl is-system-running'
    dibble boot image.qcow2 --environment openstack --login me --password x
    dibble boot ramdisk.kernel --initrd ramdisk.initramfs --marker 'text that it says'
    """
    from dibble.evidence.boot_test import check_request

    request = _request(image, options)
    check_request(request)
    if options["interactive"]:
        if request.login is not None or request.marker is not None or options["as_json"]:
            raise UsageError("--interactive leaves all to you, so --login, --marker and --json have no sense with it")
        if not sys.stdin.isatty():
            raise UsageError("--interactive needs a terminal", hint="use --login and --command in scripts")
    with _serial_log(options["serial_log"]) as log, _kvm(options["accel"]) as (kvm, refused):
        return _Verb(request, options, log, kvm, refused).go()


def _request(image: Path, options: dict[str, Any]) -> BootRequest:
    from dibble.evidence.boot_test import BootRequest
    from dibble.evidence.guest_shell import Login
    from dibble.evidence.qemu import default_cpus

    if options["password"] is not None and options["user"] is None:
        raise UsageError("a password without a user", hint="give --login USER as well")
    hardware, settings = _environment(options)
    return BootRequest(
        hardware=hardware,
        settings=settings,
        image=image.resolve(),  # the sandbox shows files at their real places
        initrd=options["initrd"].resolve() if options["initrd"] else None,
        more_disks=tuple(disk.resolve() for disk in options["disks"]),
        append=options["append"],
        arch=None if options["arch"] == "auto" else options["arch"],
        firmware=None if options["firmware"] == "auto" else options["firmware"],
        uefi_variables=options["uefi_variables"].resolve() if options["uefi_variables"] else None,
        memory_mib=options["memory_mib"],
        cpus=options["cpus"] or default_cpus(),
        network=not options["no_network"],
        writable=options["writable"],
        marker=options["marker"],
        passphrase=_text_of(options["passphrase_file"]).removesuffix("\n") if options["passphrase_file"] else None,
        login=Login(options["user"], options["password"]) if options["user"] is not None else None,
        commands=options["commands"],
        timeout_s=options["timeout_s"],
    )


def _environment(options: dict[str, Any]) -> tuple[Hardware, Settings | None]:
    """The devices of the environment, and what the guest is told. Raises UsageError."""
    from dibble.evidence.hardware import Hardware
    from dibble.evidence.metadata import KINDS, Settings, user_data_for

    hardware, kind = Hardware(), options["metadata"] or ""
    if options["environment"]:
        from dibble.recipe.presets import read_preset

        machine = read_preset(options["environment"], os.environ, Path.cwd()).target.machine
        hardware, kind = Hardware(machine.disk_bus, machine.network), kind or machine.metadata
    if kind in ("", "none"):
        for name in ("user_data", "ssh_key"):
            if options[name]:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} reaches no guest", hint=f"say how: --metadata {', '.join(KINDS)}")
        return hardware, None
    keys = tuple(_text_of(options["ssh_key"]).splitlines()) if options["ssh_key"] else ()
    if options["user_data"]:
        data = _text_of(options["user_data"]).encode()
    else:
        data = user_data_for(options["user"], options["password"], keys) if options["user"] else b"#cloud-config\n{}\n"
    return hardware, Settings(kind, options["hostname"], data, keys, options["user"] or "")


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="give the path of a text file") from error


@contextlib.contextmanager
def _serial_log(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        log = path.open("wb")
    except OSError as error:
        raise OutputError(f"the serial log {path} cannot be written: {error.strerror}") from error
    with log:
        yield log


@contextlib.contextmanager
def _kvm(wanted: str) -> Iterator[tuple[int | None, Accelerator | None]]:
    """/dev/kvm, opened here: in the sandbox the user has lost the group that may. Else TCG with the reason."""
    from dibble.evidence.qemu import Accelerator

    if wanted == "tcg":
        yield None, Accelerator("tcg", "as asked for")
        return
    try:
        device = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        yield None, Accelerator("tcg", f"cannot open {KVM}: {error.strerror}")
        return
    try:
        yield device, None
    finally:
        os.close(device)


class _Verb:
    """One run of the verb, and what it shows."""

    def __init__(
        self,
        request: BootRequest,
        options: dict[str, Any],
        log: IO[bytes] | None,
        kvm: int | None,
        settled: Accelerator | None,
    ) -> None:
        self._request = request
        self._options = options
        self._as_json: bool = options["as_json"]
        self._log = log
        self._kvm = kvm
        self._settled = settled

    def go(self) -> int:
        from dibble.cli.display_json import JsonReporter
        from dibble.sandbox.enter import run_in_namespace

        from_host = self._options["tools"] == "host"
        try:
            result = self._with_host_tools() if from_host else run_in_namespace(self._in_tools_tree)
        except DibbleError as error:
            if self._as_json:
                JsonReporter(sys.stdout).failed(error)
            raise
        if result is None:
            return 0
        self._show_result(result)
        if result.failure is not None:
            raise result.failure
        return 0 if result.ok else 1

    def _with_host_tools(self) -> BootResult | None:
        from dibble.evidence.boot_test import Bench
        from dibble.sandbox.toolbox import HostToolbox
        from dibble.store.places import open_store

        with open_store(cache_dir(os.environ)).session() as session:
            # The device is not handed over: the host's QEMU may be too old for that (8.1 can), and opens it itself.
            return self._boot(Bench(HostToolbox(), session.path, _host_arch(), None, self._settled))

    def _in_tools_tree(self) -> BootResult | None:
        from dibble.evidence import image_head, qemu
        from dibble.evidence.boot_test import Bench, arch_of
        from dibble.evidence.metadata import BY_DISC
        from dibble.sandbox import mounts
        from dibble.sandbox.workspace import tools_session
        from dibble.store.places import open_store

        store = open_store(cache_dir(os.environ))
        group = qemu.tools_group(self._request.arch or _host_arch(), _host_arch())
        settings = self._request.settings
        more = ["iso"] if settings is not None and settings.kind in BY_DISC else []
        more += ["u-boot"] if self._request.firmware == "u-boot" else []
        with tools_session(store, self._events(), group, *more, offline=self._options["offline"]) as (
            session,
            toolbox,
        ):
            assert toolbox.root is not None
            initrd = self._request.initrd
            disks = (self._request.image, *self._request.more_disks)
            files = [self._request.image, initrd] if initrd else [f for d in disks for f in image_head.files_of(d)]
            for path in dict.fromkeys(files):
                writable = self._request.writable and path in disks
                mounts.bind_at(path, toolbox.root, read_only=not writable)
            scratch = session.path / "boot"
            scratch.mkdir()
            bench = Bench(toolbox, scratch, _host_arch(), self._kvm, self._settled)
            arch = arch_of(self._request, bench)
            if qemu.tools_group(arch, bench.host_arch) == group:
                return self._boot(bench)
        # Only the tools can look into an image that is not raw; now that it is known to need others, take those.
        self._request = replace(self._request, arch=arch)
        return self._in_tools_tree()

    def _boot(self, bench: Bench) -> BootResult | None:
        from dibble.evidence import boot_test, qemu
        from dibble.evidence.interactive import HOW_TO_LEAVE, connect

        guest = boot_test.guest_for(self._request, bench)
        if self._options["accel"] == "kvm" and guest.accelerator.name != "kvm":
            raise BootError(f"KVM cannot be used: {guest.accelerator.reason}", hint="boot with --accel auto or tcg")
        self._say(f"{self._request.image}: {_machine_text(guest.arch, guest.firmware, guest.accelerator)}")
        if self._options["interactive"]:
            self._say(HOW_TO_LEAVE)
            with qemu.started(guest, bench.toolbox, bench.scratch, bench.kvm) as running:
                if not connect(running.serial, sys.stdin.fileno(), sys.stdout.fileno(), self._log):
                    status = running.process.wait(10.0)
                    if status:
                        raise BootError(f"QEMU ended with status {status}: {running.said}")
            self._say("")
            return None
        live = self._options["verbose"] or (sys.stderr.isatty() and not self._as_json)
        return boot_test.boot(
            self._request,
            bench,
            guest=guest,
            on_line=_show_serial if live else None,
            on_command=self._show_command,
            log=self._log,
        )

    def _events(self) -> Events:
        from dibble.cli.display_json import JsonReporter
        from dibble.cli.display_plain import PlainReporter
        from dibble.events import Events

        return Events([JsonReporter(sys.stdout) if self._as_json else PlainReporter(sys.stderr, timestamps=False)])

    def _say(self, text: str) -> None:
        if not self._as_json:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _show_command(self, result: CommandResult) -> None:
        from dibble.cli.display_plain import printable
        from dibble.wording import seconds_text

        output = printable(f"{result.output}\n" if result.output else "", sys.stdout)
        self._say(f"$ {result.command}\n{output}(status {result.status}, {seconds_text(result.seconds)})")

    def _show_result(self, result: BootResult) -> None:
        from dibble.wording import seconds_text

        if self._as_json:
            sys.stdout.write(json.dumps(result_data(self._request, result)) + "\n")
            sys.stdout.flush()
            return
        moments = [f"{_MOMENTS[name]} after {seconds_text(seconds)}" for name, seconds in result.seconds.items()]
        self._say(", ".join(moments))
        if result.powered_off is False:
            self._say("the guest did not shut down by itself")


def result_data(request: BootRequest, result: BootResult) -> dict[str, object]:
    """The last line of --json."""
    failure = result.failure
    return {
        "event": "BootFinished",
        "ok": result.ok,
        "image": str(request.image),
        "arch": result.arch,
        "firmware": result.firmware,
        "accelerator": result.accelerator.name,
        "accelerator_reason": result.accelerator.reason,
        "seconds": result.seconds,
        "commands": [asdict(command) for command in result.commands],
        "powered_off": result.powered_off,
        "last_lines": list(result.last_lines),
        "error": None if failure is None else {"message": failure.message, "hint": failure.hint},
    }


def _machine_text(arch: str, firmware: str, accelerator: Accelerator) -> str:
    reason = f" ({accelerator.reason})" if accelerator.reason else ""
    return f"{arch}, {firmware.upper()}, {accelerator.name.upper()}{reason}"


def _show_serial(line: str) -> None:
    from dibble.cli.display_plain import printable

    sys.stderr.write(printable(f"{line}\n", sys.stderr))
    sys.stderr.flush()


def _host_arch() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
