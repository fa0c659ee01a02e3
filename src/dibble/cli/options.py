"""The table of options as click options, and the habits of getopt(1) that click does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dibble.recipe.options import BY_KEY, OPTIONS, Command, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def request_options(command: Command) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with every option of the table that it understands. None stands for "not given"."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(OPTIONS):
            flags = option.flags_for(command)
            if flags:
                function = _click_option(option, flags)(function)
        return function

    return decorate


def _click_option(option: Option, flags: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = option.help
    if option.variable:
        text += f"  [{option.variable}]"
    if option.kind.flag:
        return click.option(*flags, option.key, is_flag=True, default=None, help=text)
    if option.kind.counts:
        return click.option(*flags, option.key, count=True, default=None, help=text)
    return click.option(
        *flags, option.key, metavar=option.kind.metavar, multiple=option.kind.gathers, default=None, help=text
    )


def settings_of(values: Mapping[str, Any], command: Command) -> dict[str, object]:
    """What click parsed, as settings: only what was given, each value read by its kind. Raises click.UsageError."""
    settings: dict[str, object] = {}
    for key, value in values.items():
        option = BY_KEY.get(key)
        if option is None or value is None or value == () or (option.kind.flag and value is False):
            continue
        try:
            settings[key] = _read(option, value)
        except ValueError as error:
            raise click.UsageError(f"the option {'/'.join(option.flags_for(command))} {error}") from error
    return settings


def _read(option: Option, value: Any) -> object:  # click gives bool, int, str or a tuple of str, by the kind
    if option.kind.flag:
        return option.kind.of_data(True)
    if option.kind.counts:
        return value or None
    if option.kind.gathers:
        gathered: list[str] = []
        for text in value:
            words = option.kind.of_text(text)
            assert isinstance(words, tuple)
            gathered += words
        return tuple(gathered)
    return option.kind.of_text(value)


class GetoptCommand(click.Command):
    """A command whose long options may be shortened to any unambiguous beginning, as getopt(1) has it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, expand_abbreviations(args, self.get_params(ctx)))


def expand_abbreviations(args: Sequence[str], params: Sequence[click.Parameter]) -> list[str]:
    """The arguments with every shortened long option spelt out.

    An argument that is the value of the option before it is left alone, as is all that follows `--`. Raises
    click.UsageError for a beginning that several options share.
    """
    takes_value = {
        name: not (param.is_flag or param.count)
        for param in params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }
    expanded: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*expanded, arg, *rest]
        wants_value = False
        if arg.startswith("--"):
            given, equals, value = arg.partition("=")
            name = _full_name(given, list(takes_value))
            expanded.append(name + equals + value)
            wants_value = takes_value.get(name, False) and not equals
        else:
            expanded.append(arg)
            if arg.startswith("-"):
                wants_value = _ends_in_option_with_value(arg, takes_value)
        if wants_value:
            expanded.extend([value for value in [next(rest, None)] if value is not None])
    return expanded


def _full_name(given: str, names: list[str]) -> str:
    if given in names:
        return given
    candidates = [name for name in names if name.startswith(given)]
    if len(candidates) > 1:
        raise click.UsageError(f"the option {given} may be {' or '.join(sorted(candidates))}")
    return candidates[0] if candidates else given


def _ends_in_option_with_value(cluster: str, takes_value: Mapping[str, bool]) -> bool:
    """Whether `-xuo` leaves its value to the next argument; in `-oname` it is already there."""
    for position, letter in enumerate(cluster[1:], start=1):
        if takes_value.get(f"-{letter}", False):
            return position == len(cluster) - 1
    return False


def schema_option(module: str, what: str) -> Callable[[Any], Any]:
    """`--schema`: print what `json_schema` of a module, imported only then, gives, and end."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            import importlib
            import json

            click.echo(json.dumps(importlib.import_module(module).json_schema(), indent=2))
            context.exit()

    return click.option(
        "--schema",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help=f"Print the JSON schema of {what}.",
    )
