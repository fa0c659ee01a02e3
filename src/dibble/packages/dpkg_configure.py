"""The target's own maintainer scripts and dpkg, run in the target.

dpkg itself runs postinsts and triggers. preinsts of packages that we put in place ourselves are run here, with the
arguments and environment of dpkg (deb-preinst(5), dpkg(1) "Environment").
"""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING

from dibble.errors import PackageError
from dibble.packages.dpkg_database import DATABASE, Unpacked
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dibble.sandbox.process import Completed

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C",  # the only locale that is there from the start
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "DEBCONF_NOWARNINGS": "yes",
    "SYSTEMD_OFFLINE": "1",
}
DPKG = ("dpkg", "--force-unsafe-io", "--force-confold", "--force-confdef")

FIRST = (("libc6", "libc6.1", "base-passwd", "mawk", "base-files", "debianutils"), ("dash",))
"""Configured before all others, whatever they depend on, a group after the other: the scripts of the others need users,
awk and /bin/sh. That of dash in bullseye needs awk, and the /etc/shells that debianutils makes there."""

_CONTROL = DATABASE / "tmp.ci"
"""Where dpkg has a package's control files while its preinst runs; debconf reads its name and templates there."""

_POLICY = "usr/sbin/policy-rc.d"
_POLICY_TEXT = "#!/bin/sh\nexit 101\n"  # 101: action forbidden by policy (invoke-rc.d(8))

_SETTING_UP = re.compile(r"^(Setting up|Unpacking|Removing|Processing triggers for) (\S+)")
_BROKEN = re.compile(r"^dpkg: error processing (?:package|archive) (\S+) \(--?[\w-]+\):")
_SCRIPT = re.compile(r"(?:installed|new|old) (\S+) package (\S+) script subprocess (.*)")
_DEPENDENCY = "dependency problems - leaving unconfigured"


@dataclass(slots=True)
class Target:
    """A root with /proc, /dev and /sys, in which programs are run; `on_line` gets what they print."""

    root: Path
    on_line: Callable[[str], None]
    dpkg_version: str = "1.22"
    environment: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))

    def run(self, argv: Sequence[str]) -> Completed:
        """Run a program in the target; the caller looks at its status."""
        return run(argv, root=self.root, env=self.environment, on_line=self.on_line, check=False)

    def preinst(self, unpacked: Unpacked) -> bool:
        """Run a package's preinst as for a first installation; False when it has none. Raises PackageError."""
        if not unpacked.script("preinst"):
            return False
        control = unpacked.control()
        name = control.get("Package")
        environment = {
            **self.environment,
            "DPKG_MAINTSCRIPT_NAME": "preinst",
            "DPKG_MAINTSCRIPT_PACKAGE": name,
            "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
            "DPKG_MAINTSCRIPT_ARCH": control.get("Architecture"),
            "DPKG_RUNNING_VERSION": self.dpkg_version,
            "DPKG_ROOT": "",
            "DPKG_ADMINDIR": f"/{DATABASE}",
        }
        folder = self.root / _CONTROL
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unpacked.entry / "control", folder)
        try:
            script = f"/{_CONTROL}/preinst"
            done = run([script, "install"], root=self.root, env=environment, on_line=self.on_line, check=False)
        finally:
            shutil.rmtree(folder)
        if done.status:
            raise script_failed(f"{name} {control.get('Version')}", "preinst", f"status {done.status}", done.output)
        return True

    def dpkg(self, *arguments: str, later: bool = False) -> bool:
        """Run dpkg. True when all went well.

        Raises PackageError for a script that fails; with `later`, packages that lack their dependencies are no error.
        """
        done = self.run([*DPKG, *arguments])
        if not done.status:
            return True
        error = dpkg_failure(done.output, later=later)
        if error:
            raise error
        return False


@contextlib.contextmanager
def no_services(root: Path) -> Iterator[None]:
    """Forbid scripts to start services, with a policy file that goes away again; one that is there stays."""
    policy = root / _POLICY
    if policy.exists() or not policy.parent.is_dir():
        yield
        return
    policy.write_text(_POLICY_TEXT)
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_awk(root: Path) -> Iterator[None]:
    """A link from awk to mawk as long as no package has made it an alternative: preinsts use awk before that."""
    awk = root / "usr/bin/awk"
    if awk.is_symlink() or awk.exists() or not (root / "usr/bin/mawk").exists():
        yield
        return
    awk.symlink_to("mawk")
    try:
        yield
    finally:
        awk.unlink(missing_ok=True)


def progress_of(line: str) -> str:
    """The package that a line of dpkg's output says to be worked on, or ""."""
    match = _SETTING_UP.match(line)
    return match[2] if match and match[1] != "Processing triggers for" else ""


def dpkg_failure(output: str, *, later: bool = False) -> PackageError | None:
    """The error in dpkg's output; None when there are only unmet dependencies and `later` allows them."""
    lines = output.splitlines()
    dependencies = []
    for number, line in enumerate(lines):
        match = _BROKEN.match(line)
        if not match:
            continue
        reason = lines[number + 1].strip() if number + 1 < len(lines) else ""
        if reason == _DEPENDENCY:
            dependencies.append(match[1])
            continue
        script = _SCRIPT.search(reason)
        if script and script[2]:
            name = script[2].replace("post-installation", "postinst").replace("pre-installation", "preinst")
            name = name.replace("post-removal", "postrm").replace("pre-removal", "prerm")
            return script_failed(
                match[1], name, script[3].replace("returned error exit ", ""), "\n".join(lines[:number])
            )
        return PackageError(f"{match[1]}: {reason or 'dpkg cannot process it'}{last_lines(lines[:number])}")
    if dependencies and later:
        return None
    if dependencies:
        said = [line.strip() for line in lines if " depends on " in line or "is not configured yet" in line]
        return PackageError(
            f"{', '.join(dependencies)} cannot be configured, for lack of dependencies" + last_lines(said)
        )
    return PackageError(f"dpkg failed{last_lines(lines)}")


def script_failed(package: str, script: str, how: str, output: str) -> PackageError:
    """The error for a maintainer script that failed, with the last lines it printed."""
    return PackageError(
        f"the {script} of {package} ended with {how}{last_lines(output.splitlines())}",
        hint="the package's script fails in the image; look at the lines above",
    )


def last_lines(lines: Sequence[str]) -> str:
    """The end of what was printed, indented, to follow a message."""
    return "".join(f"\n    {line}" for line in lines[-12:] if line.strip())
