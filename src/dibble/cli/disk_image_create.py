"""`disk-image-create` and `ramdisk-image-create`: the command line of DIB (contract.md 1.2)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dibble import __version__
from dibble.cli.build import build_image
from dibble.cli.main import run_verb
from dibble.cli.options import GetoptCommand, request_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from dibble.recipe.options import Command

DISK_COMMAND: Command = "disk-image-create"
RAMDISK_COMMAND: Command = "ramdisk-image-create"


def _compatible(name: Command, summary: str) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function of elements and option values the command `name`; both take the same command line."""

    def decorate(function: Callable[..., int]) -> click.Command:
        for decorator in (
            click.argument("elements", nargs=-1, metavar="ELEMENT..."),
            click.version_option(__version__, message="%(version)s"),
            request_options(name),
        ):
            function = decorator(function)
        return click.command(
            cls=GetoptCommand,
            name=name,
            context_settings={"help_option_names": ["-h", "--help"]},
            short_help=summary,
        )(function)

    return decorate


@_compatible(DISK_COMMAND, "Build an image, with the command line of diskimage-builder.")
def disk_image_create(elements: tuple[str, ...], **values: Any) -> int:
    """Build an image from elements, with the command line of diskimage-builder.

    Options and elements may stand in any order.
    """
    return build_image(elements, values, command=DISK_COMMAND)


@_compatible(RAMDISK_COMMAND, "Build a kernel and an initial ramdisk, with the command line of diskimage-builder.")
def ramdisk_image_create(elements: tuple[str, ...], **values: Any) -> int:
    """Build a kernel and an initial ramdisk from elements: NAME.kernel and NAME.initramfs.

    Options and elements may stand in any order. The element "ramdisk", or that of --ramdisk-element, is added.
    """
    return build_image(elements, values, command=RAMDISK_COMMAND, ramdisk=True)


def main() -> int:
    """Entry point of both installed commands: the name that the program is called by selects (contract.md 1.1)."""
    return run_verb(RAMDISK_COMMAND if Path(sys.argv[0]).name == RAMDISK_COMMAND else DISK_COMMAND)
