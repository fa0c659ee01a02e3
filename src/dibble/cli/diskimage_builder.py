"""`diskimage-builder`: builds the images that YAML files list, one after another (contract.md 1.6)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dibble.errors import DibbleError
from dibble.recipe.image_lists import ImageCommand, image_commands
from dibble.sandbox.process import run

# As the installed commands do; the name under which the program runs selects the ramdisk.
_CALL = "import sys; sys.argv[0] = sys.argv.pop(1); from dibble.cli.disk_image_create import main; sys.exit(main())"


def main(argv: list[str] | None = None) -> int:
    """Build every image, or with `--dry-run` none; the status of the first that fails, 1 for a bad file."""
    parser = argparse.ArgumentParser(
        prog="diskimage-builder", description="Build the images that YAML files list; see docs/image-lists.md."
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--stop-on-failure", action="store_true", help="build no more images after one has failed")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a YAML list of images")
    options = parser.parse_args(argv)
    try:
        commands = image_commands(options.files)
    except DibbleError as error:
        print(f"diskimage-builder: {error}", file=sys.stderr)
        return 1
    failed: dict[str, int] = {}
    begun = 0
    for command in commands:
        print(f"{command}\n", file=sys.stderr, flush=True)
        if options.dry_run:
            continue
        begun += 1
        if status := _build(command):
            failed[command.name] = status
            if options.stop_on_failure:
                break
    if failed:
        names = ", ".join(f"{name} (status {status})" for name, status in failed.items())
        left = f"; {len(commands) - begun} not begun" if begun < len(commands) else ""
        print(f"diskimage-builder: {len(failed)} of {len(commands)} images failed: {names}{left}", file=sys.stderr)
    return next(iter(failed.values()), 0)


def _build(command: ImageCommand) -> int:
    argv = [sys.executable, "-P", "-s", "-c", _CALL, command.program, *command.arguments]
    search = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": search, **command.environment}
    return run(argv, env=environment, cwd=Path.cwd(), check=False, interactive=True).status


if __name__ == "__main__":
    sys.exit(main())
