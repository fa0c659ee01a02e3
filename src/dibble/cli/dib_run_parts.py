"""`dib-run-parts`: becomes the shell script of that name, which also runs inside images (contract.md 1.8)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from dibble.errors import HostError

SCRIPT = Path(__file__).resolve().parent.parent / "catalogue" / "lib" / "dib-run-parts"


def main(argv: list[str] | None = None) -> int:
    """Does not return where bash can be started; its status is the script's."""
    arguments = sys.argv[1:] if argv is None else argv
    bash = shutil.which("bash") or "/bin/bash"
    try:
        os.execv(bash, [bash, str(SCRIPT), *arguments])  # noqa: S606 - no shell in between
    except OSError as error:
        problem = HostError(f"cannot start {bash}: {error.strerror}", hint="install bash")
        print(problem, file=sys.stderr)
        return problem.exit_status


if __name__ == "__main__":
    sys.exit(main())
