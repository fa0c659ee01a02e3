"""`disk-image-create` and `ramdisk-image-create`: the command line of DIB (contract.md 1.2)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dibble import __version__
from dibble.cli.build import build_image
from dibble.cli.main import run_verb
from dibble.cli.options import GetoptCommand, request_options

RAMDISK_COMMAND = "ramdisk-image-create"


@click.command(
    cls=GetoptCommand,
    name="disk-image-create",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Build an image, with the command line of diskimage-builder.",
)
@request_options("disk-image-create")
@click.version_option(__version__, message="%(version)s")
@click.argument("elements", nargs=-1, metavar="ELEMENT...")
def disk_image_create(elements: tuple[str, ...], **values: Any) -> int:
    """Build an image from elements, with the command line of diskimage-builder.

    Options and elements may stand in any order.
    """
    return build_image(elements, values, command="disk-image-create", ramdisk=called_as_ramdisk())


def called_as_ramdisk() -> bool:
    """The name under which the program was called selects the ramdisk (contract.md 1.1)."""
    return Path(sys.argv[0]).name == RAMDISK_COMMAND


def main() -> int:
    """Entry point of the installed commands disk-image-create and ramdisk-image-create."""
    return run_verb("disk-image-create")
