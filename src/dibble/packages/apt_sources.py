"""What apt may install from: sources, keys, pins and settings as one value, apart from any machine.

A `SourceSet` holds the contents of everything, not paths, so that its digest says whether two builds see the same
repositories, and so that keys and pins of the target work for an apt that runs outside it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import PackageError, SignatureError
from dibble.packages.debian_sources import Source, parse_list, read_sources
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dibble.packages.base import BootstrapRequest

Files = tuple[tuple[str, bytes], ...]
"""File names, without folders, and contents."""

_ARMOUR = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_KEY_SUFFIXES = (".gpg", ".asc")
DEFAULT_KEYRING = "usr/share/keyrings/debian-archive-keyring.gpg"

# Settings of a target that change what apt resolves or how it reaches a mirror; everything else (hooks above all)
# belongs to the target's own apt and must not run outside. Source: apt.conf(5).
_SETTINGS = re.compile(
    r"(APT::(Install-(Recommends|Suggests)|Default-Release|Build-Profiles|Solver|NeverAutoRemove"
    r"|Never-MarkAuto-Sections|AutoRemove|Get::AllowUnauthenticated)"
    r"|Acquire::(http|https|ftp)::(?!Proxy-Auto-Detect|ProxyAutoDetect).*|Acquire::(AllowInsecureRepositories|ForceIPv[46]))"
    r"(::.*)?",
    re.IGNORECASE,
)


_FALSE = ("", "no", "false", "without", "off", "disable", "0")  # apt-pkg/contrib/strutl.cc, StringToBool


@dataclass(frozen=True, slots=True)
class SourceSet:
    """Sources whose `signed_by` values are names in `keys`, or fingerprints; `trusted` keys serve the others.

    `settings` are lines of apt.conf.
    """

    arch: str
    sources: tuple[Source, ...]
    foreign: tuple[str, ...] = ()
    keys: Files = ()
    trusted: Files = ()
    preferences: Files = ()
    settings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Names everything that decides what apt resolves, other than the lists themselves."""
        parts = [self.arch, *self.foreign, "", *(source.stanza() for source in self.sources), "", *self.settings]
        for files in (self.keys, self.trusted, self.preferences):
            parts += [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in files]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def trust(self) -> str:
        """Names the keys that lists were verified with: sets that trust alike may share lists."""
        rows = [hashlib.sha256(data).hexdigest() for _, data in (*self.keys, *self.trusted)]
        rows += [f"{source.uris} {source.fields}" for source in self.sources if source.fields]
        return hashlib.sha256("\n".join(sorted(set(rows))).encode()).hexdigest()

    @property
    def is_insecure(self) -> bool:
        """Whether something may come from these sources without a valid signature."""
        fields = {name for source in self.sources for name, _ in source.fields}
        risky = {"Trusted", "Allow-Insecure", "Allow-Weak", "Allow-Downgrade-To-Insecure"}
        return bool(fields & risky) or any(
            ("insecure" in line.lower() or "unauth" in line.lower())
            and line.partition(" ")[2].strip('";').lower() not in _FALSE
            for line in self.settings
        )

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """(uri without final slash, suite) of each repository, in order, once."""
        pairs = ((uri.rstrip("/"), suite) for source in self.sources for uri in source.uris for suite in source.suites)
        return tuple(dict.fromkeys(pairs))

    def with_mirror(self, old: str, new: str) -> SourceSet:
        """The same set with one mirror replaced by another."""
        sources = tuple(
            replace(source, uris=tuple(new if uri == old else uri for uri in source.uris)) for source in self.sources
        )
        return replace(self, sources=sources)


def bootstrap_sources(request: BootstrapRequest, tools_root: Path, *, recommends: bool = False) -> SourceSet:
    """The sources of a bootstrap, from its first mirror and its own further source lines.

    Without keyrings in the request, the archive's keyring of the tools is trusted. Raises SignatureError when there is
    none, PackageError for a source line that cannot be read.
    """
    if not request.mirrors:
        raise PackageError("a bootstrap needs a mirror", hint="set DIB_DISTRIBUTION_MIRROR")
    keyrings = request.keyrings or (tools_root / DEFAULT_KEYRING,)
    keys: dict[str, bytes] = {}
    if not request.unsigned:
        for keyring in keyrings:
            _add_key(keys, keyring)
    insecure = (("Trusted", "yes"),) if request.unsigned else ()
    signed_by = " ".join(keys)
    sources = [Source((request.mirrors[0],), (request.suite,), request.components, signed_by, insecure)]
    for line in request.sources:
        for source in parse_list(line, "the request's sources"):
            sources.append(
                _with_keys(source, keys, Path)
                if source.signed_by
                else replace(source, signed_by=signed_by, fields=(*source.fields, *insecure))
            )
    return SourceSet(
        request.arch,
        tuple(sources),
        keys=tuple(keys.items()),
        settings=(f'APT::Install-Recommends "{str(recommends).lower()}";',),
    )


def target_sources(
    root: Path, arch: str, foreign: Iterable[str], settings: Iterable[str], *, shown: str = ""
) -> SourceSet:
    """The sources, keys and pins of the system in `root`; `settings` are its apt.conf as `apt-config dump` prints it.

    Links are followed inside `root` only. Repositories that are directories in `root` get the path `shown` of it, where
    our apt sees it, put before theirs; those on a CD are left out. Raises PackageError for what cannot be read.
    """

    def inside(name: str) -> Path:
        return resolve_inside(root, name)

    etc = inside("etc/apt")
    keys: dict[str, bytes] = {}
    sources = tuple(
        _with_keys(replace(source, uris=tuple(_seen_at(uri, shown) for uri in source.uris)), keys, inside)
        for source in read_sources(etc)
        if not any(uri.startswith("cdrom:") for uri in source.uris)
    )
    trusted: dict[str, bytes] = {}
    for path in (etc / "trusted.gpg", *_entries(resolve_inside(root, "etc/apt/trusted.gpg.d"))):
        if path.suffix in _KEY_SUFFIXES and (data := _read(resolve_inside(root, str(path.relative_to(root))))):
            trusted[path.name] = data
    preferences = {}
    for path in (etc / "preferences", *_entries(etc / "preferences.d")):
        if path.suffix in ("", ".pref") and (data := _read(resolve_inside(root, str(path.relative_to(root))))):
            preferences[path.name] = data
    return SourceSet(
        arch,
        sources,
        tuple(foreign),
        tuple(keys.items()),
        tuple(trusted.items()),
        tuple(preferences.items()),
        tuple(line for line in settings if _SETTINGS.fullmatch(line.partition(" ")[0])),
    )


def foreign_architectures(root: Path, arch: str) -> tuple[str, ...]:
    """The further architectures of the system in `root` (dpkg --add-architecture)."""
    return tuple(name for name in _read(root / "var/lib/dpkg/arch").decode("ascii", "replace").split() if name != arch)


def foreign_hooks(settings: Iterable[str]) -> tuple[str, ...]:
    """Commands that the target's apt is set up to run around dpkg, other than the harmless dpkg-preconfigure."""
    found = []
    for line in settings:
        name, _, value = line.partition(" ")
        is_hook = re.match(r"DPkg::(Pre-Invoke|Post-Invoke|Pre-Install-Pkgs)::", name, re.IGNORECASE)
        if is_hook and "dpkg-preconfigure" not in value and value != '"";':
            found.append(f"its apt runs {value.strip(';')} around dpkg")
    return tuple(found)


def _seen_at(uri: str, shown: str) -> str:
    method, _, path = uri.partition(":")
    return f"{method}:{shown}/{path.lstrip('/')}" if method in ("file", "copy") else uri


def _with_keys(source: Source, keys: dict[str, bytes], place: Callable[[str], Path]) -> Source:
    """The source with its key files taken into `keys` and named by those names."""
    if _ARMOUR in source.signed_by:
        data = source.signed_by.encode()
        name = f"embedded-{hashlib.sha256(data).hexdigest()[:16]}.asc"
        keys[name] = data + b"\n"
        return replace(source, signed_by=name)
    names = []
    for word in source.signed_by.replace(",", " ").split():
        names.append(_add_key(keys, place(word)) if "/" in word else word)
    return replace(source, signed_by=" ".join(names))


def _add_key(keys: dict[str, bytes], path: Path) -> str:
    data = _read(path)
    if not data:
        raise SignatureError(
            f"the keyring {path} does not exist or is empty",
            hint="name the archive's keyring with DIB_APT_KEYRING, or give --unsigned to trust the mirror without keys",
        )
    # apt looks at the ending to tell armoured keys from binary ones
    suffix = ".asc" if _ARMOUR.encode() in data[:4096] else ".gpg"
    name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', path.stem)}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    keys[name] = data
    return name


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that lead to a proxy, which apt must see too."""
    names = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
    return {name: value for name, value in environment.items() if name.lower() in names}
