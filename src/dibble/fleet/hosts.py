"""Root trees as hosts: what of ours is brought into one, so that dibble runs in it as on a machine of that kind.

The tree gives the C library, Python and every program of the host; dibble's own code and its libraries are brought.
Downloads are shared between hosts. Layers are not: a layer's key does not know on which host it was made, so with one
store the second host would build nothing and prove nothing.
"""

from __future__ import annotations

import fcntl
import json
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dibble
from dibble.errors import HostError, ToolFailed
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.fleet.pool import Job

CODE, LIBRARIES, CHECKOUT = Path("/opt/dibble/src"), Path("/opt/dibble/lib"), Path("/opt/dibble/checkout")
"""Where our code, its libraries and, for the row tox, a checkout stand in the tree."""
SPEC = "host.json"
OLDEST_PYTHON = (3, 11)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_PASSED = ("TMPDIR", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_STATE_HOME", "DIBBLE_VENV", "DIBBLE_COMMAND")
_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Visit:
    """One command in a host. All paths are this machine's; those in `shown` stand at the same place in the tree."""

    tree: str
    name: str
    directory: str
    """Of the cell: where the command runs, and which it may write to."""
    host_directory: str
    downloads: str
    words: tuple[str, ...]
    """What Python runs."""
    environment: Mapping[str, str]
    shown: tuple[str, ...] = ()
    checkout: str = ""


def in_tree(job: Job, words: Sequence[str], checkout: Path | None = None) -> list[str]:
    """The command that runs `python3 WORDS` in the job's host. The cell's directory must be there."""
    assert job.tree is not None
    assert job.host_directory is not None
    given = {name: text for name, text in job.environment.items() if name not in _NOT_PASSED}
    shown = [*given.get("ELEMENTS_PATH", "").split(":"), *job.work.recipe.get("elements-path", ())]
    shown += [given[name] for name in _FILES if name in given]
    visit = Visit(
        tree=str(job.tree),
        name=job.work.cell.host,
        directory=str(job.directory),
        host_directory=str(job.host_directory),
        downloads=str(job.store / "blobs"),
        words=tuple(words),
        environment={
            **given,
            "PATH": _PATH,
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "DIB_IMAGE_CACHE": str(job.host_directory / "store"),
            "PYTHONPATH": f"{CODE}:{LIBRARIES}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        shown=tuple(dict.fromkeys(path for path in shown if path)),
        checkout=str(checkout or ""),
    )
    place = job.directory / SPEC
    place.write_text(json.dumps({name: getattr(visit, name) for name in Visit.__slots__}), encoding="utf-8")
    return [sys.executable, "-P", "-s", "-m", "dibble.fleet.nested", str(place)]


def code() -> Path:
    """The directory that our package stands in."""
    return Path(dibble.__file__).resolve().parent.parent


def libraries(version: tuple[int, int], place: Path, environment: Mapping[str, str], checkout: str) -> Path:
    """A directory with what our code imports, for that version of Python; `place` keeps what must be fetched for it.

    Our own libraries serve the same version. Raises HostError where they cannot be had.
    """
    if version == sys.version_info[:2] and not checkout:
        return Path(sysconfig.get_paths()["purelib"])
    lock = Path(checkout or code().parent) / ("requirements-dev.lock" if checkout else "requirements.lock")
    name = f"python-{version[0]}.{version[1]}" + ("-tests" if checkout else "")
    folder, done = place / name, place / name / ".complete"
    place.mkdir(parents=True, exist_ok=True)
    with (place / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == _mark(lock):
            return folder
        argv = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"),
            *("--target", str(folder), "--python-version", f"{version[0]}.{version[1]}", "--only-binary=:all:"),
            *(("-r", str(lock)) if lock.is_file() else _pins()),
        ]
        try:
            run(argv, env=environment)
        except ToolFailed as error:
            raise HostError(
                f"the libraries of dibble for Python {version[0]}.{version[1]} cannot be had: {error.message}",
                hint="can this machine's pip reach a package index? see its own messages above",
            ) from error
        done.write_text(_mark(lock))
    return folder


def _mark(lock: Path) -> str:
    return lock.read_text() if lock.is_file() else " ".join(_pins())


def _pins() -> list[str]:
    """What is installed beside us, as requirements: an installed dibble has no lock file."""
    from importlib.metadata import distributions

    own = {"dibble", "pip", "setuptools", "wheel"}
    found = {(one.metadata["Name"], one.version) for one in distributions()}
    return sorted(f"{name}=={version}" for name, version in found if name.lower() not in own)
