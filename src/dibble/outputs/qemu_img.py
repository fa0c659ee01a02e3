"""Having qemu-img write a format: what the user's own options ask for and our writers do not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.errors import ToolFailed
from dibble.outputs.place import move

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox


def options_of(request: Request) -> dict[str, str]:
    """`--qemu-img-options` by name."""
    parts = [part for part in request.qemu_img_options.split(",") if part]
    return dict(part.partition("=")[::2] for part in parts)


def convert(
    disk: Path, target_file: Path, form: str, request: Request, toolbox: Toolbox, *, arguments: Sequence[str] = ()
) -> None:
    """Write the file beside the disk, where the tools see it, and move it from there. `form` is qemu-img's name.

    Without `arguments`, the options of the request are given as they are. Raises ToolFailed.
    """
    made = disk.with_name(f"{disk.name}.{form}")
    options = request.qemu_img_options.strip(",")
    arguments = arguments or ("-f", "raw", "-O", form, *(("-o", options) if options else ()))
    toolbox.ensure("core")
    try:
        toolbox.run(["qemu-img", "convert", *arguments, toolbox.path(disk), toolbox.path(made)])
        move(made, target_file)
    except ToolFailed as error:
        if options:
            error.hint = f'see "qemu-img create -f {form} -o help" for --qemu-img-options {request.qemu_img_options}'
        raise
    finally:
        made.unlink(missing_ok=True)
