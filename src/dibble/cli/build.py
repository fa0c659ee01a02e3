"""`dibble build`: elements or a recipe → an image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from dibble.cli.options import expand_abbreviations, request_options, schema_option, settings_of
from dibble.recipe.load import requests_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.recipe.options import Command


@click.command(
    name="build",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Build an image from elements or a recipe.",
)
@request_options("build")
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON on standard output.")
@schema_option("dibble.recipe.schema", "recipes")
@click.argument("words", nargs=-1, metavar="ELEMENT... | FILE.yaml")
def build(words: tuple[str, ...], as_json: bool, **values: Any) -> int:
    """Build an image from elements, or from a recipe in YAML.

    \b
    dibble build debian-minimal vm        writes debian-minimal-vm.qcow2
    dibble build image.yaml               what the recipe says
    """
    return build_image(words, values, command="build", as_json=as_json)


def build_image(
    words: tuple[str, ...],
    values: Mapping[str, Any],
    *,
    command: Command,
    as_json: bool = False,
    ramdisk: bool = False,
) -> int:
    """Make the request, build it with reporters listening, and return the exit status. Raises DibbleError."""
    from dibble.cli.display import reporters_for
    from dibble.errors import DibbleError
    from dibble.events import Events
    from dibble.run.build import build as run_build

    settings = settings_of(values, command)
    requests = requests_of(words, settings, os.environ, command=command, ramdisk=ramdisk, arguments=own_arguments())
    if len(requests) > 1:
        from dibble.cli.build_several import build_several
        from dibble.run.prepare import check_architecture

        for one in requests:  # before any of them begins
            check_architecture(one)
        return build_several(requests, own_arguments(), command=command, as_json=as_json)
    (request,) = requests
    reporters = reporters_for(request, as_json=as_json)
    events = Events(reporters)
    try:
        run_build(request, events)
        if "docker" in request.outputs:
            from dibble.outputs.docker import load

            load(request, events)
    except DibbleError as error:
        if not ramdisk:  # `dibble shell` makes none
            from dibble.cli.way_in import with_way_in

            arguments = own_arguments()
            if command != "build":  # another default, and abbreviations that `dibble shell` does not know
                named = [] if "name" in settings else ["-o", request.name]
                params = click.get_current_context().command.params
                arguments = (*named, *expand_abbreviations(arguments, params))
            with_way_in(error, arguments, keeps=request.keep_on_failure)
        for reporter in reporters:
            reporter.failed(error)
        raise
    finally:
        events.close()
    return 0


def own_arguments() -> tuple[str, ...]:
    """The arguments after the verb, for DIB_ARGS; `main` hands the whole command line to the root context."""
    context = click.get_current_context()
    whole: tuple[str, ...] = context.find_root().obj
    return whole[whole.index(context.info_name) + 1 :] if context.info_name in whole else whole
