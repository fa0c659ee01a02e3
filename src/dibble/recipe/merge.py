"""Command line + recipe + environment + facts of this machine → Request. One pure function.

A value is taken from the command line, else from the recipe, else from its environment twin, else from the preset of
the environment that the image is for, else its default.
Packages of the recipe and of the command line add up, as do the levels of tracing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from dibble import registry
from dibble.errors import UsageError
from dibble.recipe import environment as env
from dibble.recipe.kinds import GIB, MIB
from dibble.recipe.model import RemoteCache, Request
from dibble.recipe.options import OPTIONS, Command

if TYPE_CHECKING:
    from dibble.recipe.model import Target
    from dibble.recipe.presets import Preset

Settings = Mapping[str, object]  # key of an option → its value, as the option's kind reads it
Value = TypeVar("Value")

DEFAULT_JOURNAL_MIB = 64  # contract.md 1.2
DEFAULT_MIN_TMPFS_GIB = 2
DEFAULT_MAX_AGE_S = 3600

# `uname -m` → what dpkg calls it (contract.md 1.3, and dpkg's cputable for the rest)
_DEBIAN_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64el",
    "loongarch64": "loong64",
    "armv5tel": "armel",
    "armv6l": "armel",
    "i486": "i386",
    "i586": "i386",
    "i686": "i386",
}


@dataclass(frozen=True, slots=True)
class Host:
    """The facts of this machine that defaults are made of. `machine` as `uname -m` prints it."""

    machine: str
    home: Path
    cwd: Path
    catalogue: Path


@dataclass(frozen=True, slots=True)
class Asked:
    """What one source of values (the command line, a recipe) asks for.

    `block_device_source` names the place of the disk description in `settings`, for messages.
    """

    elements: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    default_name: str = ""
    block_device_source: str = ""


def debian_arch(name: str) -> str:
    """The architecture as Debian calls it; a name that is not known is returned as it is."""
    if name.startswith("armv7") or name.startswith("armv8"):
        return "armhf"
    return _DEBIAN_ARCH.get(name, name)


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The values that environment twins give; an empty variable counts as not set. Raises UsageError."""
    found: dict[str, object] = {}
    for option in OPTIONS:
        text = environ.get(option.variable, "") if option.variable else ""
        if text:
            try:
                found[option.key] = (option.of_variable or option.kind.of_text)(text)
            except ValueError as error:
                raise UsageError(
                    f"the variable {option.variable} {error}", hint=f"unset {option.variable}, or correct it"
                ) from error
    return found


class _Chosen:
    """The values in force, by option, each of a known type."""

    def __init__(self, *sources: Settings) -> None:
        self._sources = sources

    def get(self, key: str, default: Value) -> Value:
        found = self.find(key, type(default))
        return default if found is None else found

    def find(self, key: str, kind: type[Value]) -> Value | None:
        for source in self._sources:
            value = source.get(key)
            if value is not None:
                assert isinstance(value, kind), f"{key} is {value!r}"
                return value
        return None


def merge(
    command_line: Asked,
    recipe: Asked,
    environ: Mapping[str, str],
    host: Host,
    *,
    command: Command = "build",
    ramdisk: bool = False,
    arguments: str = "",
    preset: Preset | None = None,
) -> Request:
    """The request that all sources together make.

    Raises UsageError for a bad variable, an unknown output format, no element, or a name that is a directory.
    """
    wants_clear = _Chosen(
        command_line.settings, recipe.settings, from_environment({"CLEAR_ENV": environ.get("CLEAR_ENV", "")})
    )
    clear = wants_clear.get("clear", False)
    base = preset.asked if preset else Asked()
    caller = {**base.environment, **(env.cleared(environ) if clear else environ), **recipe.environment}
    twins = from_environment(caller)
    chosen = _Chosen(command_line.settings, recipe.settings, twins, base.settings)

    elements = recipe.elements + command_line.elements
    if not elements:
        raise UsageError("no element given", hint="name at least an operating system, such as debian-minimal")
    default_name = recipe.default_name or ("-".join(elements) if command == "build" else "image")
    if preset:
        default_name = recipe.default_name or f"{default_name}-{preset.target.name}"
        elements += tuple(name for name in base.elements if name not in elements)
        _check_formats(preset, _Chosen(command_line.settings, recipe.settings).find("outputs", tuple))
    outputs = _outputs(chosen.get("outputs", ("qcow2",)))
    name = _name(chosen.get("name", default_name), outputs)
    arch = chosen.get("arch", debian_arch(host.machine))
    logfile = chosen.find("logfile", str)
    quiet = chosen.find("quiet", bool)
    block_device = chosen.find("block_device_config", str)
    trace = sum(_Chosen(source).get("trace", 0) for source in (command_line.settings, recipe.settings, twins))
    packages = (
        _Chosen(base.settings).get("packages", ())
        + _Chosen(recipe.settings).get("packages", ())
        + _Chosen(command_line.settings).get("packages", ())
    )
    given_path: tuple[str, ...] = chosen.get("element_path", ())
    element_path = (*(host.cwd / entry for entry in given_path), host.catalogue)
    tools = chosen.get("tools", "tree")
    refresh: tuple[str, ...] = chosen.get("refresh", ())  # what is done again is done with what there is now

    request = Request(
        name=name,
        arch=debian_arch(arch),
        elements=elements,
        outputs=outputs,
        environment={},
        element_path=element_path,
        packages=packages,
        skip_base=chosen.get("skip_base", False),
        ramdisk=ramdisk,
        compress=not chosen.get("uncompressed", False),
        checksums=chosen.get("checksums", ()),
        qemu_img_options=chosen.get("qemu_img_options", ""),
        image_size_bytes=chosen.find("image_size", int),
        image_extra_size_bytes=chosen.find("image_extra_size", int),
        max_online_resize=chosen.find("max_online_resize", int),
        mkfs_options=chosen.get("mkfs_options", ""),
        mkfs_journal_size_mib=chosen.get("mkfs_journal_size", DEFAULT_JOURNAL_MIB),
        root_label=chosen.find("root_label", str),
        fs_type=chosen.get("fs_type", "ext4"),
        offline=chosen.get("offline", False),
        max_age_s=chosen.get("max_age", 0 if refresh else DEFAULT_MAX_AGE_S),
        refresh=refresh,
        keep_on_failure=chosen.get("keep_on_failure", False),
        trace=trace,
        quiet=quiet if quiet is not None else logfile is not None,
        logfile=host.cwd / logfile if logfile else None,
        install_type=chosen.get("install_type", "source"),
        cache_dir=cache_dir_of(chosen.find("cache_dir", str), caller, host),
        remote_cache=_remote_cache(chosen, host),
        docker_target=chosen.find("docker_target", str),
        # A ramdisk is small and is built on disk or with little memory (D24: DIB means this but does not do it).
        no_tmpfs=chosen.get("no_tmpfs", ramdisk),
        min_tmpfs_gib=chosen.get("min_tmpfs", 1 if ramdisk else DEFAULT_MIN_TMPFS_GIB),
        block_device_config=block_device,
        block_device_source=recipe.block_device_source or ("DIB_BLOCK_DEVICE_CONFIG" if block_device else ""),
        secrets=_secrets(host, base.settings, twins, recipe.settings, command_line.settings),
        secure_boot_key=_file(chosen, "secure_boot_key", host),
        secure_boot_cert=_file(chosen, "secure_boot_cert", host),
        tools="host" if tools == "host" else "tree",
        cwd=host.cwd,
        overwrite=chosen.get("overwrite", False),
        layout=preset.layout if preset and not block_device else "",
        target=_target(preset, caller, _Chosen(command_line.settings, recipe.settings, twins), block_device),
        arguments=arguments,
    )
    hooks = env.for_hooks(caller) | _exported(request, arch, chosen)
    return replace(request, environment={**hooks, "DIB_ENV": env.declared(hooks)})


def _check_formats(preset: Preset, asked: tuple[str, ...] | None) -> None:
    """Raises UsageError where the preset's own format is wanted and there is none of that name."""
    wanted = asked or _Chosen(preset.asked.settings).get("outputs", ())
    known = registry.names("outputs") if wanted and set(wanted) - set(registry.BUILT_IN["outputs"]) else ()
    missing = [name for name in wanted if known and name not in known]
    if missing and not asked:
        raise UsageError(
            f'the environment "{preset.target.name}" takes the format "{missing[0]}", which is not among the formats',
            hint=f"install the package that adds it, or choose with -t among {', '.join(known)}",
        )


def _target(preset: Preset | None, caller: Mapping[str, str], said: _Chosen, block_device: str | None) -> Target | None:
    """The preset's target, with what the preset set and where somebody else's word won."""
    if preset is None:
        return None
    found: list[tuple[str, str]] = [("elements", " ".join(preset.asked.elements))] if preset.asked.elements else []
    lost: list[tuple[str, str]] = []
    if preset.layout:
        (lost if block_device else found).append(("layout", preset.layout))
    for key, value in preset.asked.settings.items():
        name = next(option.recipe_key for option in OPTIONS if option.key == key) or key.replace("_", "-")
        adds_up = key in ("packages", "trace")
        overruled = not adds_up and said.find(key, object) is not None
        (lost if overruled else found).append((name, _shown(value)))
    for variable, value in preset.asked.environment.items():
        (found if caller[variable] == value else lost).append((variable, value))
    return replace(preset.target, set=tuple(found), overruled=tuple(lost))


def _shown(value: object) -> str:
    """A setting as a recipe would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _outputs(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Each format once. DIB notices a wrong one after the whole build (D9), and none at all never (D27)."""
    if not asked:
        raise UsageError("no output format given", hint=f"known are: {', '.join(registry.names('outputs'))}")
    for output in asked:
        if output not in registry.BUILT_IN["outputs"]:
            known = registry.names("outputs")
            if output not in known:
                raise registry.unknown("output format", output, known)
    return tuple(dict.fromkeys(asked))


def _name(name: str, outputs: tuple[str, ...]) -> str:
    """The name without the suffix that a single output adds itself (contract.md 1.2, -o)."""
    if "://" in name or Path(name).is_block_device():
        raise UsageError(
            f"{name} is no name for files",
            hint=f"build a raw disk (-o NAME -t raw), then: dibble publish NAME.raw --to {name}",
        )
    if len(outputs) == 1:
        name = name.removesuffix(f".{outputs[0]}")
    if not name or name.endswith("/") or Path(name).name in {"", ".", ".."}:
        raise UsageError(f'the name "{name}" is a directory', hint="give the first part of the output file names")
    return name


def cache_dir_of(asked: str | None, environ: Mapping[str, str], host: Host) -> Path:
    """The cache asked for, else the one of the XDG base directories (`$XDG_CACHE_HOME/dibble`)."""
    if asked:
        return host.cwd / asked
    base = environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else host.home / ".cache") / "dibble"


def _file(chosen: _Chosen, key: str, host: Host) -> Path | None:
    name = chosen.find(key, str)
    return host.cwd / name if name else None


def _secrets(host: Host, *sources: Settings) -> dict[str, Path]:
    """The files of all sources, by name; the last one that has a name wins."""
    found: dict[str, Path] = {}
    for source in sources:
        pairs: tuple[str, ...] = _Chosen(source).get("secrets", ())
        for pair in pairs:
            name, _, file = pair.partition("=")
            found[name] = host.cwd / file
    return found


def _remote_cache(chosen: _Chosen, host: Host) -> RemoteCache | None:
    """The remote cache asked for. It is added to unless it is a web server, or its entries must be signed by others."""
    url = chosen.find("remote_cache", str)
    if not url:
        return None
    key, trust = (_file(chosen, f"remote_cache_{name}", host) for name in ("key", "trust"))
    push = chosen.find("remote_cache_push", str)
    scheme = urlsplit(url).scheme
    return RemoteCache(
        url=url if scheme else str(host.cwd / url),
        push=push == "yes" if push else scheme not in ("http", "https") and not (trust and not key),
        key=key,
        trust=trust,
    )


def _exported(request: Request, arch: str, chosen: _Chosen) -> dict[str, str]:
    """The variables that stand for options (contract.md 1.2) and are not fields of the request that the run exports."""
    variables = {
        "ARCH": arch,
        "DIB_JOURNAL_SIZE": str(request.mkfs_journal_size_mib),
        "COMPRESS_IMAGE": "true" if request.compress else "",
    }
    if request.skip_base:
        variables["SKIP_BASE"] = "1"
    if request.image_size_bytes is not None:
        variables["DIB_IMAGE_SIZE"] = f"{request.image_size_bytes / GIB:.15g}"
    if request.image_extra_size_bytes is not None:
        variables["DIB_IMAGE_EXTRA_SIZE"] = f"{request.image_extra_size_bytes / MIB:.15g}"
    if request.max_online_resize is not None:
        variables["MAX_ONLINE_RESIZE"] = str(request.max_online_resize)
    for key, name in (
        ("install_type", "DIB_DEFAULT_INSTALLTYPE"),
        ("root_label", "ROOT_LABEL"),
        ("ramdisk_element", "RAMDISK_ELEMENT"),
        ("docker_target", "DOCKER_TARGET"),
        ("qemu_img_options", "QEMU_IMG_OPTIONS"),
    ):
        value = chosen.find(key, str)
        if value is not None:
            variables[name] = value
    return variables
