"""`dib-block-device`: what a block-device description says, for scripts (contract.md 5.1).

dibble mounts no disk: it writes one when the tree is complete. So of the commands that make, mount and unmount,
`create` is refused, and the others find nothing to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import DibbleError, UsageError

if TYPE_CHECKING:
    from dibble.disk.model import Graph

VARIABLE = "DIB_BLOCK_DEVICE_PARAMS_YAML"
COMMANDS = ("init", "getval", "create", "writefstab", "umount", "cleanup", "delete")


def main(argv: list[str] | None = None) -> int:
    """Carry out one command. Status 1 for whatever is wrong with parameters or description, 2 for the command line."""
    parser = argparse.ArgumentParser(prog="dib-block-device", description="Ask about the disk of an image.")
    parser.add_argument("--params", default=os.environ.get(VARIABLE), help=f"parameters in YAML (default: ${VARIABLE})")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("symbol", nargs="?", help="for getval: root-label, root-fstype, boot-label, mount-points …")
    options = parser.parse_args(argv)
    if not options.params:
        parser.error(f"give --params FILE, or set {VARIABLE}")
    if (options.command == "getval") != bool(options.symbol):
        parser.error("getval takes a symbol" if options.command == "getval" else f"{options.command} takes no symbol")
    try:
        return _run(options.command, options.symbol or "", _parameters(Path(options.params)))
    except DibbleError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _run(command: str, symbol: str, parameters: dict[str, str]) -> int:
    state = Path(_needed(parameters, "build-dir")) / "states" / "block-device"
    if command in ("umount", "cleanup", "delete"):
        if command != "umount":
            shutil.rmtree(state, ignore_errors=True)
        print("there is no disk: dibble writes it when the tree is complete", file=sys.stderr)
        return 0
    if command == "create":
        raise UsageError(
            "dibble mounts no disk that could be created beforehand",
            hint="dibble build writes it when the tree is complete",
        )
    graph = _graph(parameters)
    if command == "init":
        state.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_needed(parameters, "config"), state / "config.yaml")
    elif command == "writefstab":
        from dibble.disk.fstab import fstab_text

        target = Path(parameters["build-dir"]) / "built" / "etc" / "fstab"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(fstab_text(graph))
    else:
        print(_value(graph, symbol, parameters))
    return 0


def _value(graph: Graph, symbol: str, parameters: dict[str, str]) -> str:
    from dibble.disk.fstab import getval
    from dibble.disk.graph import MAIN_IMAGE

    if symbol == "image-path":
        return str(Path(_needed(parameters, "image-dir")) / f"{MAIN_IMAGE}.raw")
    return getval(graph, symbol)


def _parameters(file: Path) -> dict[str, str]:
    from dibble.elements.readers.documents import Scalar, read_document

    document = read_document(file)
    table = document.table(document.root, "the parameters")
    return {
        key.text: "" if isinstance(value, Scalar) and value.null else document.text(value, key.text)
        for key, value in table.entries
    }


def _needed(parameters: dict[str, str], name: str) -> str:
    if not parameters.get(name):
        raise UsageError(f'the parameters have no "{name}"', hint=f"add {name}: …")
    return parameters[name]


def _graph(parameters: dict[str, str]) -> Graph:
    from dibble.disk.graph import parse
    from dibble.disk.model import Defaults
    from dibble.elements.readers.documents import read_text

    config = _needed(parameters, "config")
    defaults = Defaults(
        seed=uuid.NAMESPACE_URL,  # no id is asked for here
        root_fs_type=parameters.get("root-fs-type") or "ext4",
        root_label=parameters.get("root-label") or None,
        mkfs_options=parameters.get("root-fs-opts", ""),
    )
    return parse(read_text(Path(config)), source=config, defaults=defaults)


if __name__ == "__main__":
    sys.exit(main())
