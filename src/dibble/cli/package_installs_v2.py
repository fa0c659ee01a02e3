"""`package-installs-v2` on a host: installs what a squashed package list asks for (contract.md 3.4).

Inside a build the command of this name is a shell script that asks dibble.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.engine_verbs import Context, VerbResult, install_command, mapped_packages, pkg_map
from dibble.elements.readers.package_installs import read_squashed
from dibble.errors import DibbleError, HostError
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: list[str] | None = None) -> int:
    """Map the packages of a phase and call `install-packages`, found on PATH, once. Any failure is status 1."""
    parser = argparse.ArgumentParser(
        prog="package-installs-v2", description="Install, or uninstall, the packages that elements want in a phase."
    )
    parser.add_argument("--phase", required=True, help="the phase, e.g. install.d")
    parser.add_argument("--uninstall", action="store_true", help="uninstall what is to go at the end of the phase")
    parser.add_argument("-n", "--noop", action="store_true", help="print the command and run nothing")
    parser.add_argument("file", metavar="FILE", help="JSON as package-installs-squash writes it")
    options = parser.parse_args(argv)
    context = Context((), os.environ, Path("/"))

    def names_for(element: str, packages: Sequence[str]) -> VerbResult:
        return pkg_map(["--missing-ok", "--element", element, "--", *packages], context)

    try:
        wanted = read_squashed(Path(options.file))
        packages, problems = mapped_packages(wanted, options.phase, options.uninstall, names_for)
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            return 1
        if not packages:
            print(f"Nothing to {'uninstall' if options.uninstall else 'install'} in {options.phase}")
            return 0
        command = install_command(packages, options.uninstall)
        if options.noop:
            print(" ".join(command))
            return 0
        program = shutil.which(command[0])
        if not program:
            raise HostError(f"{command[0]} is not on PATH", hint="the operating system's element brings it")
        done = run([program, *command[1:]], env=os.environ, cwd=Path.cwd(), check=False, interactive=True)
    except DibbleError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if done.status else 0


if __name__ == "__main__":
    sys.exit(main())
