"""What stands behind `dib-engine package-installs`, `squash-package-installs`, `pkg-map`, `svc-map` and
`merge-svc-map`: the commands of contract.md 3.4 to 3.6, for targets that have a shell and nothing more.

A verb reads files and answers; it runs nothing and, but for the two that are given an OUTFILE, changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dibble.elements.chroot_path import within
from dibble.elements.readers.package_installs import Squashed, by_element, read_squashed, squash
from dibble.elements.readers.pkg_map import read_pkg_map
from dibble.elements.readers.svc_map import merged_services, read_services, service_names
from dibble.errors import DibbleError, ElementError, PackageError, UsageError
from dibble.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dibble.elements.model import Element

PKG_MAPS = "/usr/share/pkg-map"
SERVICES = "/usr/share/svc-map/services"


@dataclass(frozen=True, slots=True)
class Context:
    """Who calls: the image's elements, the calling script's variables, the target's tree as our process sees it.

    Files that a verb is given are the target's: paths as seen from inside it, or below TMP_MOUNT_PATH.
    """

    elements: tuple[Element, ...]
    environment: Mapping[str, str]
    target_root: Path


class VerbResult(NamedTuple):
    """Lines for the caller's standard output and standard error, and the exit status."""

    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    status: int = 0


@dataclass(frozen=True, slots=True)
class PackageRequest:
    """What the package manager is to do. `messages` are lines for the caller's standard output."""

    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


def _words(verb: str) -> Words:
    """A verb's words; `--help` must be asked for as an ordinary option."""
    parser = Words(verb)
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    return parser


def package_installs(argv: Sequence[str], context: Context) -> PackageRequest:
    """`--phase P [--uninstall] [--noop] [FILE]`: the packages that the elements want in a phase, mapped, each once.

    Without FILE (JSON as `squash-package-installs` writes it) the elements are asked. With `--noop` the request is
    empty and the messages hold the command. Raises UsageError, ElementError, and PackageError for names that cannot
    be mapped.
    """
    parser = _words("package-installs")
    parser.add_argument("--phase", required=True, metavar="PHASE")
    parser.add_argument("--uninstall", action="store_true")
    parser.add_argument("-n", "--noop", action="store_true")
    parser.add_argument("file", nargs="?", metavar="FILE")
    options = parser.parse_args(argv)
    if options.help:
        return PackageRequest(messages=tuple(parser.format_help().splitlines()))
    wanted = read_squashed(_file(context, options.file)) if options.file else _squashed(context)

    def names_for(element: str, packages: Sequence[str]) -> VerbResult:
        return pkg_map(["--missing-ok", "--element", element, "--", *packages], context)

    packages, problems = mapped_packages(wanted, options.phase, options.uninstall, names_for)
    if problems:
        raise PackageError("; ".join(problems), hint="is DISTRO_NAME exported by the operating system's element?")
    if not packages:
        what = "uninstall" if options.uninstall else "install"
        return PackageRequest(messages=(f"Nothing to {what} in {options.phase}",))
    if options.noop:
        return PackageRequest(messages=(" ".join(install_command(packages, options.uninstall)),))
    return PackageRequest(remove=packages) if options.uninstall else PackageRequest(install=packages)


def mapped_packages(
    wanted: Squashed, phase: str, uninstall: bool, names_for: Callable[[str, Sequence[str]], VerbResult]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The distribution's packages for a phase, each once, and what `names_for` complained of.

    The order is that of the elements, then of their files. `names_for` maps one element's packages.
    """
    requests = wanted.get(phase, {}).get("uninstall" if uninstall else "install", [])
    packages: dict[str, None] = {}
    problems: list[str] = []
    for element, names in by_element(requests).items():
        answer = names_for(element, names)
        if answer.status:
            problems.extend(answer.stderr)
        for line in answer.stdout:
            packages.update(dict.fromkeys(line.split()))
    return tuple(packages), tuple(problems)


def install_command(packages: Sequence[str], uninstall: bool) -> tuple[str, ...]:
    """The command that an operating system's element provides for installing and removing."""
    return ("install-packages", *(("-e",) if uninstall else ()), *packages)


def squash_package_installs(argv: Sequence[str], context: Context) -> VerbResult:
    """`[--elements "A B"] OUTFILE`: write what all elements, or those named, want as JSON; `-` is standard output.

    `--path` is accepted, as of old, and not needed. Raises UsageError, ElementError.
    """
    parser = _words("package-installs-squash")
    parser.add_argument("--elements", metavar="NAMES")
    parser.add_argument("--path", metavar="ELEMENTS_PATH")
    parser.add_argument("outfile", nargs="?", default="-", metavar="OUTFILE")
    options = parser.parse_args(argv)
    if options.help:
        return _help(parser)
    text = json.dumps(_squashed(context, options.elements), indent=2)
    return _written(context, options.outfile, text)


def _squashed(context: Context, names: str | None = None) -> Squashed:
    elements = context.elements
    if names is not None:
        elements = tuple(element for element in elements if element.name in names.split())
    return squash(elements, context.environment, context.environment.get("ARCH", ""))


def pkg_map(argv: Sequence[str], context: Context) -> VerbResult:
    """`[--element E | --pkg-map FILE] [--distro D] [--release R] [--missing-ok] [--prefix P] NAME…`: one line a name.

    A line is the prefix and the distribution's packages, separated by blanks; a name that needs no package has no
    line. Status 1: a name is not mapped, or an argument is missing or wrong; 2: there is no map. With `--missing-ok`
    unmapped names stand for themselves. Distribution and release default to DISTRO_NAME and DIB_RELEASE. The map of
    an element is the one in the target, else the element's own.
    """
    parser = _words("pkg-map")
    parser.add_argument("--element", metavar="ELEMENT")
    parser.add_argument("--pkg-map", metavar="FILE")
    parser.add_argument("--distro", metavar="DISTRO", default=context.environment.get("DISTRO_NAME"))
    parser.add_argument("--release", metavar="RELEASE", default=context.environment.get("DIB_RELEASE"))
    parser.add_argument("--missing-ok", action="store_true")
    parser.add_argument("--prefix", metavar="PREFIX", default="")
    parser.add_argument("--debug", action="store_true", help="accepted; every answer is short enough")
    parser.add_argument("names", nargs="*", metavar="NAME")
    try:
        options = parser.parse_args(argv)
        if options.help:
            return _help(parser)
        if not options.names:
            parser.error("no package is named")
        if not options.element and not options.pkg_map:
            parser.error("one of --element and --pkg-map is needed")
        if not options.distro:
            parser.error("--distro is needed where DISTRO_NAME is not set")
        file = _map_file(context, options.element, options.pkg_map)
        package_map = read_pkg_map(file) if file else None
        if package_map is None and not options.missing_ok:
            return VerbResult(stderr=(f"there is no pkg-map of {options.element or options.pkg_map}",), status=2)
        found = {
            name: package_map.lookup(name, options.distro, options.release or "") if package_map else None
            for name in options.names
        }
    except DibbleError as error:
        return VerbResult(stderr=tuple(str(error).splitlines()), status=1)
    unmapped = [name for name in options.names if found[name] is None]
    if unmapped and not options.missing_ok:
        what = f"{options.distro} {options.release or ''}".rstrip()
        return VerbResult(stderr=tuple(f"{file} maps no package {name} for {what}" for name in unmapped), status=1)
    values = [name if found[name] is None else found[name] for name in options.names]
    return VerbResult(stdout=tuple(f"{options.prefix}{value}" for value in values if value))


def _map_file(context: Context, element: str | None, file: str | None) -> Path | None:
    """The map of an element, or the given one; None where there is none."""
    if not element:
        given = _file(context, file or "")
        return given if given.is_file() else None
    candidates = [_file(context, f"{PKG_MAPS}/{element}")]
    candidates.extend(known.path / "pkg-map" for known in context.elements if known.name == element)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def svc_map(argv: Sequence[str], context: Context) -> VerbResult:
    """`NAME…`: the distribution's name of each service, one a line; the status is always 0.

    A name for which the target has a systemd unit or an upstart job stands for itself; others go through the map in
    the target, else the elements' own.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        return VerbResult(stdout=("usage: svc-map SERVICE…",))
    installed = [
        name
        for name in argv
        if any(
            _file(context, file).is_file() for file in (f"/lib/systemd/system/{name}.service", f"/etc/init/{name}.conf")
        )
    ]
    merged = _file(context, SERVICES)
    try:
        services = read_services(merged) if merged.is_file() else _merged_services(context)
    except ElementError as error:
        return VerbResult(tuple(argv), tuple(str(error).splitlines()))
    return VerbResult(tuple(service_names(argv, services, installed)))


def merge_svc_map(argv: Sequence[str], context: Context) -> VerbResult:
    """`OUTFILE`: write the services of all elements, as DISTRO_NAME calls them, as a flat YAML map; `-` is standard
    output. Raises UsageError, and ElementError for a service that two elements map."""
    parser = _words("merge-svc-map")
    parser.add_argument("outfile", nargs="?", default="-", metavar="OUTFILE")
    options = parser.parse_args(argv)
    if options.help:
        return _help(parser)
    services = _merged_services(context)
    # JSON strings are YAML, too.
    text = "\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in services.items())
    return _written(context, options.outfile, text or "{}")


def _merged_services(context: Context) -> dict[str, str]:
    return merged_services(context.elements, context.environment.get("DISTRO_NAME", ""))


def _file(context: Context, path: str) -> Path:
    """Where a path lies that a script names, from outside or inside the target. Raises UsageError for a link loop."""
    mount = context.environment.get("TMP_MOUNT_PATH", "")
    inside = path.removeprefix(mount) if mount and path.startswith(f"{mount}/") else path
    try:
        return within(context.target_root, inside)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _written(context: Context, outfile: str, text: str) -> VerbResult:
    if outfile == "-":
        return VerbResult(stdout=tuple(text.splitlines()))
    file = _file(context, outfile)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise PackageError(f"{outfile} cannot be written: {error.strerror}") from error
    return VerbResult()


def _help(parser: Words) -> VerbResult:
    return VerbResult(stdout=tuple(parser.format_help().splitlines()))
