"""The command line's and the environment's side of a request, with the facts of this machine looked up."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import HostError, UsageError
from dibble.recipe.kinds import words_of
from dibble.recipe.merge import Asked, Host, cache_dir_of, debian_arch, merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.recipe.model import Request
    from dibble.recipe.options import Command

RECIPE_SUFFIXES = (".yaml", ".yml")


def this_host() -> Host:
    """The facts of the machine we run on. Raises HostError when the working directory is gone."""
    import dibble

    try:
        cwd = Path.cwd()
    except FileNotFoundError as error:
        raise HostError("the working directory no longer exists", hint="change to another directory") from error
    return Host(
        machine=os.uname().machine,
        home=Path.home(),
        cwd=cwd,
        catalogue=Path(dibble.__file__).parent / "catalogue" / "elements",
    )


def cache_dir(environ: Mapping[str, str]) -> Path:
    """The cache that a build with this environment uses, for verbs that look at it without building."""
    return cache_dir_of(environ.get("DIB_IMAGE_CACHE"), environ, this_host())


def requests_of(
    words: Sequence[str],
    settings: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    command: Command = "build",
    ramdisk: bool = False,
    arguments: Sequence[str] = (),
    host: Host | None = None,
) -> tuple[Request, ...]:
    """The requests of a command line: one for each architecture, named NAME-ARCH where there are several.

    Raises as `request_of`.
    """

    def asked(own: Mapping[str, object]) -> Request:
        return request_of(words, own, environ, command=command, ramdisk=ramdisk, arguments=arguments, host=host)

    whole = asked(settings)
    archs = tuple(dict.fromkeys(debian_arch(word) for word in words_of(whole.arch)))
    if len(archs) < 2:
        return (whole,)
    return tuple(
        asked({**settings, "arch": arch, "name": f"{whole.name}-{arch}", **_own_tag(whole, arch)}) for arch in archs
    )


def _own_tag(whole: Request, arch: str) -> dict[str, object]:
    """A container's tag with the architecture, so that one image does not take another's name."""
    target = whole.docker_target
    if not target:
        return {}
    return {"docker_target": f"{target}-{arch}" if ":" in target.rpartition("/")[2] else f"{target}:{arch}"}


def request_of(
    words: Sequence[str],
    settings: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    command: Command = "build",
    ramdisk: bool = False,
    arguments: Sequence[str] = (),
    host: Host | None = None,
) -> Request:
    """The one request of a command line: `words` are elements and, for `build`, at most one recipe file.

    Raises UsageError, RecipeError.
    """
    here = host or this_host()
    recipe = Asked()
    elements = tuple(words)
    if command == "build":
        files = [word for word in words if word.endswith(RECIPE_SUFFIXES)]
        if len(files) > 1:
            raise UsageError(f"{len(files)} recipes given: {', '.join(files)}", hint="build one recipe at a time")
        if files:
            from dibble.recipe.read import read_recipe

            recipe = read_recipe(here.cwd / files[0], shown=files[0])
            elements = tuple(word for word in words if word not in files)
    return request_of_asked(
        Asked(elements, settings),
        recipe,
        environ,
        here,
        command=command,
        ramdisk=ramdisk,
        arguments=" ".join(_of_the_image(arguments)),
    )


def request_of_asked(
    command_line: Asked,
    recipe: Asked,
    environ: Mapping[str, str],
    host: Host,
    *,
    command: Command = "build",
    ramdisk: bool = False,
    arguments: str = "",
) -> Request:
    """The request that a command line and a recipe make, with the preset that one of them or the environment names.

    Raises UsageError, RecipeError.
    """
    settings = command_line.settings
    name = settings.get("target") or recipe.settings.get("target")
    if not name and not (settings.get("clear") or recipe.settings.get("clear") or environ.get("CLEAR_ENV")):
        name = environ.get("DIBBLE_ENVIRONMENT")
    preset = None
    if name:
        from dibble.recipe.presets import read_preset

        preset = read_preset(str(name), environ, host.cwd)
    return merge(
        command_line,
        recipe,
        environ,
        host,
        command=command,
        ramdisk=ramdisk,
        arguments=arguments,
        preset=preset,
    )


NOT_OF_THE_IMAGE = (
    # (option, whether it takes a value): how and where to build, and options of other verbs on the same request
    ("--remote-cache", True), ("--remote-cache-push", True), ("--remote-cache-key", True),
    ("--remote-cache-trust", True), ("--secret", True), ("--secure-boot-key", True), ("--secure-boot-cert", True),
    ("--refresh", True), ("--max-age", True), ("--keep-on-failure", False),
    ("--json", False), ("--at", True), ("--after", True), ("--failed", False), ("--inside", False),
    ("--outside", False), ("--command", True), ("--dot", False), ("--all", False), ("--resolve", False),
    ("--no-resolve", False), ("--last", False),
)  # fmt: skip


def _of_the_image(arguments: Sequence[str]) -> list[str]:
    """The arguments less those that decide nothing of the tree: DIB_ARGS lands in images, which serve all formats."""
    return without(arguments, *(name for name, _ in NOT_OF_THE_IMAGE), *FORMATS)


FORMATS = ("-t", "--outputs")


def without(arguments: Sequence[str], *options: str) -> list[str]:
    """The arguments less some options of NOT_OF_THE_IMAGE or FORMATS, with values; behind `--` there are no options."""
    takes_value = {**dict(NOT_OF_THE_IMAGE), **dict.fromkeys(FORMATS, True)}
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*kept, argument, *rest]
        name, equals, _ = argument.partition("=")
        joined = "-t" in options and re.fullmatch("-t[a-z0-9,]+", argument) is not None
        if name not in options and not joined:
            kept.append(argument)
        elif not joined and takes_value[name] and not equals:
            next(rest, None)
    return kept
