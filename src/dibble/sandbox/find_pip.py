"""Which pip can be run.

It imports nothing but the standard library: the virtual environment is made with it, before there are others.
"""

from __future__ import annotations

import glob
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WHEELS = "/usr/share/python-wheels/pip-*.whl"  # where Debian's python3-pip-whl puts what its ensurepip uses
_STEERING = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_PYTHON", "PIP_ROOT")


def environment_of_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's, less what would send pip elsewhere."""
    return {name: value for name, value in environ.items() if name not in _STEERING}


def pip_for(python: str, succeeds: Callable[[Sequence[str]], bool], *, may_make: bool) -> list[str] | None:
    """The command that installs for `python`: its own pip, else a wheel of the host's, else the host's pip.

    `succeeds` tells whether a command ends with status 0. With `may_make`, `python` is that of a virtual environment
    of ours, and one that lacks pip gets it (ensurepip). None where there is no pip.
    """
    if succeeds([python, "-m", "pip", "--version"]):
        return [python, "-m", "pip"]
    if may_make and succeeds([python, "-m", "ensurepip", "--default-pip"]):
        return [python, "-m", "pip"]
    for wheel in sorted(glob.glob(WHEELS), reverse=True):  # noqa: PTH207 - a pattern with its directory
        if succeeds([python, f"{wheel}/pip", "--version"]):
            return [python, f"{wheel}/pip"]
    for host in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        command = [*host, "--python", python]  # pip 22.3 and later
        if succeeds([*command, "--version"]):
            return command
    return None
