"""`dibble shell`: a shell in the tree of a build, before or after one of its steps."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from dibble.cli.build import own_arguments
from dibble.cli.options import request_options, settings_of
from dibble.recipe.load import requests_of, without

if TYPE_CHECKING:
    from dibble.run.enter_tree import Side

_WORDS = "dibble.shell.words"


class _WithCommand(click.Command):
    """What stands behind `--` is a command to run, as in nsenter(1), and no element."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, words = (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        ctx.meta[_WORDS] = tuple(words)
        return super().parse_args(ctx, own)


@click.command(
    cls=_WithCommand,
    name="shell",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Open a shell in the tree of a build, before or after a step.",
)
@request_options("build")
@click.option("--at", metavar="STEP", default="", help="In the tree as it is before STEP (install.d/50-web, 50-web).")
@click.option("--after", metavar="STEP", default="", help="In the tree as it is after STEP.")
@click.option(
    "--failed", is_flag=True, help="In the tree as the failed step left it; build with --keep-on-failure before."
)
@click.option(
    "--inside/--outside",
    "inside",
    default=None,
    help="Chrooted to the target, or beside it in the tools tree; default: where the step runs.",
)
@click.option("--command", metavar="COMMAND", help="Run this instead of a shell, and return its status.")
@click.argument("words", nargs=-1, metavar="ELEMENT... | FILE.yaml [-- COMMAND...]")
def shell(
    words: tuple[str, ...],
    *,
    at: str,
    after: str,
    failed: bool,
    inside: bool | None,
    command: str | None,
    **values: Any,
) -> int:
    """Open a shell in the tree of a build; without --at, --after or --failed in the finished one.

    Steps before it that are not in the store are built first. What is changed in the shell is dropped.

    \b
    dibble shell --at install.d/50-web debian-minimal web      before this script runs
    dibble shell --failed image.yaml                           what a failed step has left
    dibble shell --after 50-web debian-minimal web -- cat /etc/web
    """
    from dibble.cli.display import reporters_for
    from dibble.errors import DibbleError, UsageError
    from dibble.events import Events
    from dibble.run.enter_tree import What
    from dibble.run.shell import Wanted, checked
    from dibble.run.shell import shell as run_shell

    side: Side | None = None if inside is None else "inside" if inside else "outside"
    what = What(command, click.get_current_context().meta[_WORDS])
    wanted = checked(Wanted(at, after, failed, side, what))
    arguments = own_arguments()
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
    requests = requests_of(words, settings_of(values, "build"), os.environ, arguments=arguments)
    if len(requests) > 1:
        several = ", ".join(request.arch for request in requests)
        raise UsageError(f"a shell is in one image, and there are several: {several}", hint="give one with -a")
    (request,) = requests
    # Standard output is the command's.
    reporters = reporters_for(request, stream=sys.stderr, shows_cached=False)
    events = Events(reporters)
    try:
        return run_shell(request, events, wanted)
    except DibbleError as error:
        from dibble.cli.way_in import with_way_in

        with_way_in(
            error, without(arguments, "--at", "--after", "--failed", "--command"), keeps=request.keep_on_failure
        )
        for reporter in reporters:
            reporter.failed(error)
        raise
    finally:
        events.close()
