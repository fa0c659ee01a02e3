"""`dibble doctor`: what this machine must have for a build; one function a check, each finding with its mend."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from dibble.errors import DibbleError, HostError
from dibble.recipe.load import cache_dir
from dibble.sandbox.idmap import NEEDED, read_ranges, user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OLDEST_KERNEL = (5, 12)  # overlayfs in user namespaces is of 5.11, mount_setattr(2) of 5.12
BINFMT_KERNEL = (6, 7)  # binfmt_misc in a user namespace
CACHE_BYTES = 4 * 10**9  # a build with packages, layers and image; measured on debian-minimal vm, doubled
MIRROR_SECONDS = 10.0
KVM_GET_API_VERSION = 0xAE00  # linux/kvm.h
KVM_API_VERSION = 12

State = Literal["ok", "missing", "advice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`missing` stops builds; `advice` costs speed or a feature. `mend` is one command or order, empty when ok."""

    check: str
    state: State
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks look at; tests give another one."""

    uid: int = field(default_factory=os.getuid)
    release: str = field(default_factory=lambda: os.uname().release)
    etc: Path = Path("/etc")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def user(self) -> str:
        return user_name(self.uid)

    def sysctl(self, name: str) -> str:
        """The value, or nothing where this kernel has no such setting."""
        try:
            return (self.proc / "sys" / name.replace(".", "/")).read_text().strip()
        except OSError:
            return ""


def kernel(machine: Machine) -> Finding:
    match = re.match(r"(\d+)\.(\d+)", machine.release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < OLDEST_KERNEL:
        return Finding(
            "kernel",
            "missing",
            f"Linux {machine.release}; overlays in user namespaces need 5.12",
            "update the kernel of this machine and start it again",
        )
    if version < BINFMT_KERNEL:
        return Finding(
            "kernel",
            "advice",
            f"Linux {machine.release}; images of other architectures need 6.7, or qemu-user-static on the host",
            "for other architectures: apt-get install qemu-user-static",
        )
    return Finding("kernel", "ok", f"Linux {machine.release}")


def namespace_settings(machine: Machine) -> Finding:
    """The settings that forbid user namespaces to ordinary users, one by one."""
    name = "user namespace settings"
    if machine.sysctl("user.max_user_namespaces") == "0":
        return Finding(
            name, "missing", "user.max_user_namespaces is 0", "as root: sysctl -w user.max_user_namespaces=65536"
        )
    if machine.uid != 0 and machine.sysctl("kernel.unprivileged_userns_clone") == "0":
        return Finding(
            name,
            "missing",
            "kernel.unprivileged_userns_clone is 0",
            "as root: sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if machine.uid != 0 and machine.sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return Finding(
            name,
            "missing",
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    return Finding(name, "ok", "allowed")


def id_helpers(machine: Machine) -> Finding:
    from dibble.sandbox.process import find_helper

    name = "newuidmap, newgidmap"
    if machine.uid == 0:
        return Finding(name, "ok", "not needed by root")
    lacking = [helper for helper in ("newuidmap", "newgidmap") if find_helper(helper) is None]
    if lacking:
        return Finding(name, "missing", f"no {' and no '.join(lacking)}", _install(machine, "uidmap", "shadow-utils"))
    return Finding(name, "ok", "present")


def subordinate_ids(machine: Machine) -> Finding:
    name = "subordinate ids"
    if machine.uid == 0:
        return Finding(name, "ok", "not needed by root")
    for file in ("subuid", "subgid"):
        ranges = read_ranges(machine.etc / file, machine.uid)
        total = sum(count for _, count in ranges)
        if total < NEEDED - 1:  # the user's own id is the first
            first = _first_free(machine)
            last = first + NEEDED - 1
            return Finding(
                name,
                "missing",
                f"{machine.user} has {total} in /etc/{file}; a build needs {NEEDED}",
                f"as root: usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {machine.user}",
            )
    return Finding(name, "ok", f"at least {NEEDED} for {machine.user}")


def _first_free(machine: Machine) -> int:
    """The first id above every range that is given out, at the usual start and step (login.defs(5), SUB_UID_MIN)."""
    first = 100000
    for file in ("subuid", "subgid"):
        try:
            lines = (machine.etc / file).read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            parts = line.split(":")
            if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
                first = max(first, int(parts[1]) + int(parts[2]))
    return first


def namespaces(machine: Machine) -> Finding:
    """Really enters the namespaces a build runs in."""
    from dibble.sandbox.enter import probe

    name = "entering namespaces"
    try:
        probe()
    except DibbleError as error:
        return Finding(name, "missing", error.message, error.hint)
    return Finding(name, "ok", "works")


def overlay(machine: Machine) -> Finding:
    """Really mounts an overlay whose upper directory is in the cache, or else where builds would then keep layers."""
    from dibble.store.condition import place_instead

    name = "overlay in the cache"
    cache = cache_dir(machine.environ)
    place = _existing(cache)
    refused = _overlay_refusal(place)
    if refused is None:
        return Finding(name, "ok", f"works in {place}")
    mend = "put the cache on ext4, xfs, btrfs or tmpfs with DIB_IMAGE_CACHE"
    if isinstance(refused, HostError) and refused.hint:
        mend = refused.hint
    instead = place_instead(cache)
    if _overlay_refusal(_existing(instead)) is None:
        return Finding(name, "advice", f"{place}: {_reason(refused)}; builds keep layers in {instead} instead", mend)
    return Finding(name, "missing", f"{place}: {_reason(refused)}", mend)


def _overlay_refusal(place: Path) -> Exception | None:
    from dibble.sandbox.enter import run_in_namespace
    from dibble.sandbox.mounts import overlay as mount_overlay

    def try_it() -> None:
        with tempfile.TemporaryDirectory(dir=place, prefix=".dibble-doctor-") as directory:
            lower, upper, work, target = (Path(directory) / part for part in ("lower", "upper", "work", "target"))
            for path in (lower, upper, work, target):
                path.mkdir()
            (lower / "file").touch()
            mount_overlay([lower], upper, work, target)
            try:
                (target / "file").unlink()
            finally:
                from dibble.sandbox.syscalls import umount

                umount(target)
            for path in work.iterdir():  # the kernel leaves it with mode 0
                path.chmod(0o700)

    try:
        run_in_namespace(try_it)
    except (DibbleError, OSError) as error:
        return error
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, DibbleError):
        return error.message
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def cache_space(machine: Machine) -> Finding:
    name = "cache"
    cache = cache_dir(machine.environ)
    place = _existing(cache)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(name, "missing", f"{place} is not writable for {machine.user}", "set DIB_IMAGE_CACHE")
    free = shutil.disk_usage(place).free
    detail = f"{cache}: {free / 1e9:.1f} GB free"
    if free < CACHE_BYTES:
        return Finding(
            name,
            "missing",
            f"{detail}; a build needs {CACHE_BYTES / 1e9:.0f} GB",
            "free space there, or set DIB_IMAGE_CACHE to a directory on a larger disk",
        )
    return Finding(name, "ok", detail)


def cache_condition(machine: Machine) -> Finding:
    """Whether the cache can be used as it is; where it cannot, builds use another one (`store.condition`)."""
    from dibble.store.condition import place_instead, problem_of

    name = "condition of the cache"
    cache = cache_dir(machine.environ)
    problem = problem_of(cache)
    if not problem:
        return Finding(name, "ok", "ours, and of this version" if cache.is_dir() else "not there yet")
    return Finding(
        name,
        "advice",
        f"{problem}; builds use {place_instead(cache)} instead",
        "give a directory of your own with DIB_IMAGE_CACHE",
    )


def hard_links(machine: Machine) -> Finding:
    """Really makes a hard link in the cache."""
    name = "hard links in the cache"
    place = _existing(cache_dir(machine.environ))
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".dibble-doctor-") as directory:
            Path(directory, "one").touch()
            os.link(Path(directory, "one"), Path(directory, "two"))
    except OSError as error:
        return Finding(
            name,
            "advice",
            f"{place}: {error.strerror}; packages are copied, which takes more time and room",
            "put the cache on ext4, xfs, btrfs or tmpfs with DIB_IMAGE_CACHE",
        )
    return Finding(name, "ok", f"work in {place}")


def mirror(machine: Machine) -> Finding:
    import requests

    from dibble.packages.debian_sources import host_mirrors

    name = "Debian mirror"
    base = machine.environ.get("DIB_DISTRIBUTION_MIRROR") or host_mirrors(machine.etc / "apt").archive
    url = f"{base.rstrip('/')}/dists/stable/InRelease"
    mend = "set DIB_DISTRIBUTION_MIRROR to a mirror that you reach, or http_proxy and https_proxy to your proxy"
    try:
        answer = requests.head(url, timeout=MIRROR_SECONDS, allow_redirects=True)
    except requests.RequestException as error:
        reason = type(error).__name__
        return Finding(name, "missing", f"{base} does not answer ({reason})", mend)
    if answer.status_code != requests.codes.ok:
        return Finding(name, "missing", f"{url} answers {answer.status_code}", mend)
    return Finding(name, "ok", f"{base} answers in {answer.elapsed.total_seconds():.2f} s")


def kvm(machine: Machine) -> Finding:
    """Whether guests run at full speed; `dibble boot` tries by really starting one, this only asks the device."""
    import fcntl

    name = "KVM"
    device = machine.dev / "kvm"
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Finding(
            name,
            "advice",
            "there is no /dev/kvm; guests start some ten times slower",
            "switch virtualisation on in the firmware, or nested virtualisation on the host of this machine",
        )
    except OSError as error:
        return Finding(
            name, "advice", f"/dev/kvm: {error.strerror}", f"as root: usermod --append --groups kvm {machine.user}"
        )
    try:
        version = fcntl.ioctl(descriptor, KVM_GET_API_VERSION)
    except OSError as error:
        return Finding(name, "advice", f"/dev/kvm does not answer: {error.strerror}", "load the module kvm")
    finally:
        os.close(descriptor)
    if version != KVM_API_VERSION:
        return Finding(name, "advice", f"/dev/kvm has interface {version}, not {KVM_API_VERSION}", "update the kernel")
    return Finding(name, "ok", "/dev/kvm answers; whether it runs guests, `dibble boot` finds out")


def tools_tree(machine: Machine) -> Finding:
    from dibble.store.places import Store

    place = Store(cache_dir(machine.environ)).tools
    try:
        present = any(place.iterdir())
    except OSError:
        present = False
    if not present:
        return Finding("tools tree", "advice", "not there yet; the first build makes it")
    return Finding("tools tree", "ok", str(place))


CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    kernel,
    namespace_settings,
    id_helpers,
    subordinate_ids,
    namespaces,
    overlay,
    cache_space,
    cache_condition,
    hard_links,
    mirror,
    kvm,
    tools_tree,
)


def _existing(path: Path) -> Path:
    """The path itself or the nearest directory above it that exists."""
    while not path.is_dir():
        path = path.parent
    return path


def _install(machine: Machine, debian: str, fedora: str) -> str:
    """The command that installs a package on this machine, by its os-release(5)."""
    try:
        text = (machine.etc / "os-release").read_text()
    except OSError:
        text = ""
    family = " ".join(re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)"?$', text, re.MULTILINE))
    if "debian" in family or "ubuntu" in family:
        return f"as root: apt-get install {debian}"
    if any(name in family for name in ("fedora", "rhel")):
        return f"as root: dnf install {fedora}"
    if "suse" in family:
        return "as root: zypper install shadow"
    return f"as root: install the package {debian} (Debian) or {fedora} (Fedora)"


def findings_of(machine: Machine) -> list[Finding]:
    return [check(machine) for check in CHECKS]


@click.command(short_help="Check that this machine can build images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Check that this machine can build images, and say how to mend what is missing.

    The exit status is 1 when something is missing without which no build runs.
    """
    findings = findings_of(Machine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            colour = {"ok": "green", "missing": "red", "advice": "yellow"}[finding.state]
            click.echo(f"{click.style(f'{finding.state:7}', fg=colour)}  {finding.check:<{width}}  {finding.detail}")
            if finding.state != "ok" and finding.mend:
                click.echo(f"{'':7}  {'':<{width}}  → {finding.mend}" if _unicode() else f"{'':9}-> {finding.mend}")
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def _unicode() -> bool:
    import sys

    return "utf" in (sys.stdout.encoding or "").lower()
