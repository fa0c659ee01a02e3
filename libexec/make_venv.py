"""Makes or updates a virtual environment: `make_venv.py DIRECTORY LOCK`. Runs before anything is installed.

Two starts at once do not meet: the second waits for the first. A start that was killed leaves a mark, and the next one
begins anew. The stamp that ./dibble looks at is written last.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess  # noqa: TID251 - runs before dibble can be imported
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from dibble.sandbox.find_pip import environment_of_pip, pip_for

if TYPE_CHECKING:
    from collections.abc import Sequence

UNFINISHED = ".installing"


class Failure(Exception):
    """Text for the user: what is wrong, and after it the one command that mends it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def stamp_of(venv: Path, lock: Path) -> Path:
    return venv / f".installed-{lock.name}"


def is_current(venv: Path, lock: Path) -> bool:
    """The same question that venv.sh asks."""
    stamp = stamp_of(venv, lock)
    return (
        os.access(venv / "bin/python", os.X_OK)
        and stamp.exists()
        and lock.stat().st_mtime_ns <= stamp.stat().st_mtime_ns
    )


def make(venv: Path, lock: Path) -> None:
    """Make `venv` hold exactly what `lock` asks for, or raise Failure."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(venv.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # released when this process ends, however it ends
    if is_current(venv, lock):
        return
    unfinished = venv / UNFINISHED
    if unfinished.exists():
        shutil.rmtree(venv)
    for stamp in venv.glob(".installed-*"):
        stamp.unlink()
    if not os.access(venv / "bin/python", os.X_OK):
        create(venv)
    unfinished.touch()
    packages = sum(1 for line in lock.read_text().splitlines() if "==" in line)
    pip = pip_for(str(venv / "bin/python"), succeeds, may_make=True)
    if pip is None:
        raise Failure("this machine has Python, but neither ensurepip nor pip", install_hint())
    run(
        [
            *pip,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--no-deps",
            "--require-hashes",
            "--requirement",
            str(lock),
        ],
        f"installing {packages} packages into {venv} (once)",
    )
    unfinished.unlink()
    # The requirements for development hold those for use.
    for done in {lock, lock.with_name("requirements.lock")}:
        stamp = stamp_of(venv, done)
        stamp.touch()
        newest = max(time.time_ns(), done.stat().st_mtime_ns)  # a lock from the future is not newer for ever
        os.utime(stamp, ns=(newest, newest))


def create(venv: Path) -> None:
    try:
        import venv as module
    except ImportError as error:
        raise Failure("this Python has no module venv", install_hint()) from error
    module.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(venv)


def install_hint() -> str:
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        release = ""
    for family, command in (
        ("debian", "apt-get install python3-venv"),
        ("fedora", "dnf install python3-pip"),
        ("rhel", f"dnf install python{sys.version_info.major}.{sys.version_info.minor}-pip"),
        ("suse", f"zypper install python{sys.version_info.major}{sys.version_info.minor}-pip"),
        ("arch", "pacman -S python-pip"),
        ("alpine", "apk add py3-pip"),
        ("gentoo", "emerge dev-python/pip"),
    ):
        if family in release:
            return f"as root: {command}"
    return "install pip for this Python"


def succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command, env=environment_of_pip(os.environ), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def run(command: list[str], what: str) -> None:
    """Run to the end with one line of progress on standard error. Raises Failure with the command's own words."""
    began = time.monotonic()
    live = sys.stderr.isatty()
    sys.stderr.write(f"dibble: {what} …{'' if live else chr(10)}")
    sys.stderr.flush()
    process = subprocess.Popen(
        command,
        env=environment_of_pip(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    while True:
        try:
            output, _ = process.communicate(timeout=1)
            break
        except subprocess.TimeoutExpired:
            if live:
                sys.stderr.write(f"\rdibble: {what} … {time.monotonic() - began:.0f} s")
                sys.stderr.flush()
    if live:
        sys.stderr.write(f"\rdibble: {what} … {time.monotonic() - began:.0f} s\n")
    if process.returncode:
        sys.stderr.write(output)
        raise Failure(
            f"pip ended with status {process.returncode}",
            "look at its words above; behind a proxy set https_proxy, with another package index set PIP_INDEX_URL",
        )


def main() -> int:
    venv, lock = map(Path, sys.argv[1:])
    try:
        make(venv, lock)
    except Failure as failure:
        sys.stderr.write(f"dibble: {failure}\n  hint: {failure.hint}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"dibble: cannot make {venv}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


sys.exit(main())
