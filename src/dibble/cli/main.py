"""The command line: finds the verb, and turns errors into exit statuses. Nothing else does that."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

from dibble import __version__, registry
from dibble.errors import NO_ROOM, DibbleError, HookFailed, Interrupted, OutputError, UsageError
from dibble.fleet.classify import shown_class

if TYPE_CHECKING:
    from collections.abc import Sequence

EX_SOFTWARE = 70  # sysexits(3): an internal fault
SIGNALLED = 128  # what shells add to a signal's number

COMPATIBLE = frozenset({"disk-image-create", "ramdisk-image-create"})
"""Verbs with the command line of DIB, which ends with 1 for whatever the user got wrong (contract.md 1.5)."""


class Verbs(click.Group):
    """Verbs by name from the registry; a verb's module is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return registry.names("verbs")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        command: click.Command = registry.load("verbs", cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, less its try at options: an unknown verb is told by the registry, with the nearest."""
        return args[0], self.get_command(ctx, args[0]), args[1:]


@click.command(cls=Verbs, name="dibble", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="dibble %(version)s")
def dibble() -> None:
    """Builds Linux disk, cloud and container images: rootless, cached, reproducible."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in arguments if not word.startswith("-")), "")
    compatible = verb in COMPATIBLE
    try:
        result = dibble.main(arguments, prog_name="dibble", standalone_mode=False, obj=tuple(arguments))
        sys.stdout.flush()
        status = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        status = UsageError.exit_status
    except click.ClickException as error:
        status = _fail(_usage_error(error), compatible)
    except DibbleError as error:
        status = _fail(error, compatible)
    except (KeyboardInterrupt, click.Abort):
        status = _fail(Interrupted("stopped by the user"), compatible)
    except BrokenPipeError:
        # The reader of our output is gone (`dibble … | head`).
        _drop_output()
        status = SIGNALLED + 13
    except OSError as error:
        # Whatever wrote it, and even where it was our own text, on its way into a file.
        status = _no_room(error) if error.errno in NO_ROOM else _report_fault(error)
    except Exception as error:  # noqa: BLE001 - the one place: whatever is not a DibbleError is a fault of dibble
        status = _report_fault(error)
    return status


def _usage_error(error: click.ClickException) -> UsageError:
    """click's complaint as ours: a sentence that begins small and ends without a stop, with the help as the hint."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context else ""
    if isinstance(error, click.NoSuchOption):
        message = f'unknown option "{error.option_name}"'
        near = [name for name in error.possibilities or () if name.startswith("-")]
        if near:
            hint = f"did you mean {' or '.join(near)}?"
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def _no_room(error: OSError) -> int:
    place = f" for {os.fsdecode(error.filename)}" if error.filename else ""
    full = OutputError(f"no room is left{place}: {error.strerror}", hint="free space; `df` shows which disk is full")
    full.system_error = error.errno
    with contextlib.suppress(OSError):  # standard error may be a file on that disk too
        _fail(full, compatible=False)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    return full.exit_status


def _drop_output() -> None:
    """Drop what cannot be written any more, so that Python does not complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: DibbleError, compatible: bool) -> int:
    show_error(error, sys.stderr)
    if compatible and not isinstance(error, HookFailed | Interrupted):
        return 1
    return error.exit_status


def show_error(error: DibbleError, stream: TextIO) -> None:
    """Print an error: the end of a failed hook's output, then what is wrong, where, and what to do."""
    bold, red, cyan, dim, plain = _colours(stream)
    lines: list[str] = []
    if isinstance(error, HookFailed) and error.output.lines:
        lines.append(f"{dim}last output of {error.where.step or 'the hook'}:{plain}")
        lines += [f"{dim}    {line}{plain}" for line in error.output.lines]
    place = str(error.where)
    head = f"{bold}{place}: {plain}" if place else ""
    lines.append(f"{red}dibble: {plain}{head}{error.message}")
    lines += [f"  {cyan}class:{plain} {failure}" for failure in shown_class(error)]
    lines += [f"  {cyan}hint:{plain} {hint}" for hint in error.hints]
    text = "\n".join(lines) + "\n"
    stream.write(text.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8"))
    stream.flush()


def _colours(stream: TextIO) -> tuple[str, str, str, str, str]:
    """Bold, red, cyan, dim and plain as ECMA-48 sequences; empty where nobody sees them (no-color.org)."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return ("", "", "", "", "")
    return ("\033[1m", "\033[1;31m", "\033[36m", "\033[2m", "\033[0m")


def _report_fault(error: Exception) -> int:
    import traceback

    traceback.print_exception(error)
    _say_fault(sys.stderr)
    return EX_SOFTWARE


def _say_fault(stream: TextIO) -> None:
    stream.write(
        f"\nThis is a fault in dibble {__version__} (Python {sys.version.split()[0]}), not in what you asked for.\n"
        "Please report it, with the lines above and the command line that led to it.\n"
    )


def run_verb(name: str, argv: Sequence[str] | None = None) -> int:
    """Run one verb as a command of its own, as `disk-image-create` is (entry points of the package)."""
    return main([name, *(sys.argv[1:] if argv is None else argv)])
