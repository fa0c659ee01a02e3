"""dibble's own code, and the libraries that it imports for another Python than the one that runs it."""

from __future__ import annotations

import fcntl
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import dibble
from dibble.errors import HostError, ToolFailed
from dibble.sandbox.find_pip import environment_of_pip, pip_for
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def code() -> Path:
    """The directory that our package stands in."""
    return Path(dibble.__file__).resolve().parent.parent


def libraries(version: tuple[int, int], place: Path, environment: Mapping[str, str], checkout: str) -> Path:
    """A directory with what our code imports, for that version of Python: what serves us, else `fetched_libraries`."""
    if version == sys.version_info[:2] and not checkout:
        return Path(sysconfig.get_paths()["purelib"])
    return fetched_libraries(version, place, environment, checkout)


def fetched_libraries(
    version: tuple[int, int], place: Path, environment: Mapping[str, str], checkout: str = ""
) -> Path:
    """A directory in `place` with what our code imports and nothing else, from a package index unless it is there.

    `checkout` names one of dibble whose tests shall run too. Raises HostError where the libraries cannot be had.
    """
    lock = Path(checkout or code().parent) / ("requirements-dev.lock" if checkout else "requirements.lock")
    name = f"python-{version[0]}.{version[1]}" + ("-tests" if checkout else "")
    folder, done = place / name, place / name / ".complete"
    place.mkdir(parents=True, exist_ok=True)
    with (place / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == _mark(lock):
            return folder
        argv = [
            *(*_pip(environment), "install", "--quiet", "--disable-pip-version-check", "--upgrade"),
            *("--target", str(folder), "--python-version", f"{version[0]}.{version[1]}", "--only-binary=:all:"),
            *(("-r", str(lock)) if lock.is_file() else _pins()),
        ]
        try:
            run(argv, env=environment_of_pip(environment))
        except ToolFailed as error:
            raise HostError(
                f"the libraries of dibble for Python {version[0]}.{version[1]} cannot be had: {error.message}",
                hint="can this machine's pip reach a package index? see its own messages above",
            ) from error
        done.write_text(_mark(lock))
    return folder


def _pip(environment: Mapping[str, str]) -> list[str]:
    """Raises HostError where this machine has none.

    Nothing is put into the Python that runs us: it may be the host's.
    """

    def succeeds(command: Sequence[str]) -> bool:
        try:
            return run(command, env=environment_of_pip(environment), check=False).status == 0
        except HostError:  # it is not there
            return False

    if found := pip_for(sys.executable, succeeds, may_make=False):
        return found
    raise HostError(
        "the libraries of dibble for another Python cannot be fetched: this machine has no pip",
        hint="install it (Debian: python3-pip or python3-venv; Fedora, openSUSE: python3-pip; Arch Linux: python-pip)",
    )


def _mark(lock: Path) -> str:
    return lock.read_text() if lock.is_file() else " ".join(_pins())


def _pins() -> list[str]:
    """What is installed beside us, as requirements: an installed dibble has no lock file."""
    from importlib.metadata import distributions

    own = {"dibble", "pip", "setuptools", "wheel"}
    found = {(one.metadata["Name"], one.version) for one in distributions()}
    return sorted(f"{name}=={version}" for name, version in found if name.lower() not in own)
