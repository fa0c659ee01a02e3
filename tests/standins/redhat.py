"""Fedora and CentOS Stream, made of packages of Debian: signed, with the names, paths and places of the real ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.standins.debs import Deb, fetched
from tests.standins.payload import Files, Packed, of_tree
from tests.standins.redhat_packages import GROUP_NAMES, Made, System, own_packages
from tests.standins.redhat_tables import (
    ADDITIONS,
    FIRMWARE_ROOTS,
    KERNEL,
    LEFT_OUT,
    MERGED,
    PROVIDES,
    REQUIRES,
    ROOTS,
    scripts,
)
from tests.standins.rpm_file import Dependency, Header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dibble.store.places import Store
    from tests.standins.rpm_file import Script

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
SKIPPED = tuple(
    f"/{path}/"
    for path in (
        *("etc/cron.d", "etc/cron.daily", "etc/cron.weekly", "etc/init.d", "etc/rc2.d", "usr/share/bug"),
        *("usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man"),
    )
)
_OWNED_BY_FILESYSTEM = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/run", "/tmp", "/var/tmp", "/var/run")


@dataclass(frozen=True, slots=True)
class Repository:
    """`path` below the mirror; the packages in it are those named, or with `names` None all that no other one has."""

    path: str
    names: tuple[str, ...] | None = None
    by_letter: bool = False
    """Whether packages lie in a directory for their first letter, as on Fedora's mirrors."""

    def place_of(self, header: Header) -> str:
        """The path of a package below the repository."""
        letter = f"{header.name[0].lower()}/" if self.by_letter else ""
        return f"Packages/{letter}{header.file_name}"


@dataclass(frozen=True, slots=True)
class Tables:
    """What a family of distributions calls Debian's packages, what it adds to them, and its own ones."""

    roots: tuple[str, ...]
    firmware_roots: Mapping[str, tuple[str, ...]]
    left_out: frozenset[str]
    merged: Mapping[str, str]
    kernel: str
    requires: Mapping[str, str]
    provides: Mapping[str, str]
    additions: Mapping[str, Callable[[Files], None]]
    scripts: Callable[[str], dict[str, dict[str, Script]]]
    own: Callable[[System, str], dict[str, Made]]
    groups: Callable[[str], str] | None = None
    """The groups of packages, for the name of the package that says which system it is."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One release for one architecture (Debian's name). `mirror` and `key` are paths on the server."""

    system: System
    arch: str
    suffix: str
    mirror: str
    key: str
    owner: str
    repositories: tuple[Repository, ...]
    tables: Tables = field(repr=False)
    key_beside: bool = False
    """Whether a repository holds the key that signs it, and names it in its metadata, as openSUSE's do."""

    @property
    def basearch(self) -> str:
        return ARCHITECTURES[self.arch]

    @property
    def name(self) -> str:
        return f"{self.system.name}-{self.system.version}-{self.arch}"


def fedora(release: str = "44", arch: str = "amd64") -> Distribution:
    """Fedora: one repository with everything, one with updates."""
    basearch = ARCHITECTURES[arch]

    def repo(name: str, title: str, metalink: str) -> str:
        return (
            f"[{name}]\nname=Fedora $releasever - $basearch{title}\n"
            f"metalink=https://mirrors.fedoraproject.org/metalink?repo={metalink}$releasever&arch=$basearch\n"
            "enabled=1\ncountme=1\nmetadata_expire=7d\nrepo_gpgcheck=0\ntype=rpm\ngpgcheck=1\n"
            "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-$releasever-$basearch\nskip_if_unavailable=False\n"
        )

    system = System(
        name="fedora",
        version=release,
        pretty=f"Fedora Linux {release} (Stand-in)",
        release_package="fedora-release",
        repos_package="fedora-repos",
        like="",
        platform=f"f{release}",
        database="/usr/lib/sysimage/rpm",
        key=f"/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-{release}-{basearch}",
        repos={
            "fedora.repo": repo("fedora", "", "fedora-"),
            "fedora-updates.repo": repo("updates", " - Updates", "updates-released-f"),
        },
        variables={},
        dnf5=True,
    )
    return Distribution(
        system,
        arch,
        suffix=f".fc{release}",
        mirror="pub/fedora/linux",
        key="fedora.gpg",
        owner=f"Fedora ({release}) <fedora-{release}-primary@fedoraproject.org>",
        repositories=(
            Repository(f"releases/{release}/Everything/{basearch}/os", by_letter=True),
            Repository(f"updates/{release}/Everything/{basearch}", (), by_letter=True),
        ),
        tables=_TABLES,
    )


def centos(release: str = "9-stream", arch: str = "amd64") -> Distribution:
    """CentOS Stream: the base of the system, applications in a repository of their own, and beside them EPEL."""
    number, basearch = release.removesuffix("-stream"), ARCHITECTURES[arch]

    def repo(name: str, title: str) -> str:
        return (
            f"[{name}]\nname=CentOS Stream $releasever - {title}\n"
            f"metalink=https://mirrors.centos.org/metalink?repo=centos-{name}-$stream&arch=$basearch&protocol=https,http\n"
            "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-centosofficial\ngpgcheck=1\nrepo_gpgcheck=0\n"
            "metadata_expire=6h\ncountme=1\nenabled=1\n"
        )

    system = System(
        name="centos",
        version=number,
        pretty=f"CentOS Stream {number} (Stand-in)",
        release_package="centos-stream-release",
        repos_package="centos-stream-repos",
        like="rhel fedora",
        platform=f"el{number}",
        database="/var/lib/rpm",
        key="/etc/pki/rpm-gpg/RPM-GPG-KEY-centosofficial",
        repos={"centos.repo": f"{repo('baseos', 'BaseOS')}\n{repo('appstream', 'AppStream')}"},
        variables={"stream": release},
        epel=(
            f"[epel]\nname=Extra Packages for Enterprise Linux {number}\n"
            f"#baseurl=https://download.example/pub/epel/{number}/Everything/$basearch/\n"
            f"metalink=https://mirrors.fedoraproject.org/metalink?repo=epel-{number}&arch=$basearch\n"
            "enabled=1\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-centosofficial\n"
        ),
    )
    return Distribution(
        system,
        arch,
        suffix=f".el{number}",
        mirror="centos-stream",
        key="keys/RPM-GPG-KEY-CentOS-Official",
        owner="CentOS (CentOS Official Signing Key) <security@centos.org>",
        repositories=(
            Repository(f"{release}/BaseOS/{basearch}/os"),
            Repository(f"{release}/AppStream/{basearch}/os", ("tcpdump", "traceroute")),
            Repository(f"epel/{number}/Everything/{basearch}", ("fail2ban",)),
        ),
        tables=_TABLES,
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One package to be packed: what is in it, and where its payload is kept."""

    name: str
    debs: tuple[Deb, ...]
    kernel: str
    database: str
    archive: Path
    addition: Callable[[Files], None] | None


def packages_of(
    distribution: Distribution, store: Store, payloads: Path, generator: str, key: str
) -> list[tuple[Header, Files | Job, Path]]:
    """Every package's header, what its payload is made of, and where that is kept.

    `generator` names the state of this code, `key` is the certificate of the packages, armoured.
    """
    arch, system, tables = distribution.arch, distribution.system, distribution.tables
    kernel_roots = [f"linux-image-cloud-{arch}", *tables.firmware_roots[arch]]
    debs = fetched(store, arch, [*tables.roots, *kernel_roots], tables.left_out)
    image = next(name for name in debs[f"linux-image-cloud-{arch}"].needs if name.startswith("linux-image-"))
    del debs[f"linux-image-cloud-{arch}"]
    kernel = image.removeprefix("linux-image-")
    merged = {**tables.merged, tables.kernel: image}
    name_of = {deb: name for name, members in merged.items() for deb in members.split()}
    parts: dict[str, list[Deb]] = {}
    for deb in debs.values():
        parts.setdefault(name_of.get(deb.name, deb.name), []).append(deb)
    ours = tables.own(system, key)
    known = {*parts, *ours}
    all_scripts = tables.scripts(kernel)
    found: list[tuple[Header, Files | Job, Path]] = []
    for name, members in sorted(parts.items()):
        first = _main(merged.get(name, name), members)
        needs = {name_of.get(need, need) for deb in members for need in deb.needs if need in debs}
        needs |= set(tables.requires.get(name, "").split())
        epoch, version, release = _version(first.version)
        header = Header(
            name=name,
            version=version,
            release=release + distribution.suffix,
            arch="noarch" if all(deb.arch == "all" for deb in members) else distribution.basearch,
            epoch=epoch,
            requires=_names((needs - {name}) & known),
            provides=_names(tables.provides.get(name, "").split()),
            scripts=all_scripts.get(name, {}),
        )
        own_kernel = kernel if name == tables.kernel else ""
        addition = tables.additions.get(name)
        added = f"{addition.__module__}.{addition.__name__}" if addition else ""
        own = [name, own_kernel, added, system.database if name == "rpm" else "", generator]
        archive = payloads / _digest([*own, *(deb.sha256 for deb in members)])
        job = Job(name, tuple(members), own_kernel, system.database, archive, addition)
        found.append((header, job, archive))
    for name, made in ours.items():
        found.append((_header_of_ours(name, made, distribution), made.files, payloads / f"{distribution.name}-{name}"))
    return found


def _header_of_ours(name: str, made: Made, distribution: Distribution) -> Header:
    return Header(
        name=name,
        version=distribution.system.version,
        release=f"1{distribution.suffix}",
        arch="noarch" if made.noarch else distribution.basearch,
        requires=_names(made.requires),
        provides=made.provides,
    )


def packed(what: Files | Job, archive: Path) -> Packed:
    """The payload of a package, made or found."""
    if isinstance(what, Files):
        what.without_plain_directories()
        return what.pack(archive)
    if done := Packed.load(archive):
        return done
    files = Files()
    for deb in what.debs:
        for path, entry in of_tree(deb.place / "root", deb.conffiles, GROUP_NAMES):
            place = f"/usr/lib/modules/{what.kernel}/{path.removeprefix('/boot/').removesuffix(f'-{what.kernel}')}"
            path = place if what.kernel and path.startswith("/boot/") else path  # noqa: PLW2901
            if not f"{path}/".startswith(SKIPPED) and path not in _OWNED_BY_FILESYSTEM and path != "/boot":
                files.entries[path] = entry
    if what.name == "rpm":
        files.file("/usr/lib/rpm/macros.d/macros.dbpath", f"%_dbpath {what.database}\n")
        files.directory(what.database)
    if what.addition:
        what.addition(files)
    files.without_plain_directories()
    return files.pack(archive)


def _main(merged: str, members: Sequence[Deb]) -> Deb:
    """The package whose version is that of the whole."""
    names = merged.split()
    return min(members, key=lambda deb: names.index(deb.name))


def _version(text: str) -> tuple[str, str, str]:
    """Epoch, version and release of a version of Debian's."""
    epoch, _, rest = text.rpartition(":")
    version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "1")
    return epoch, version.replace("-", "_"), release.replace("-", "_")


def _names(names: Iterable[str]) -> tuple[Dependency, ...]:
    return tuple(Dependency(name) for name in sorted(names))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def comps(release_package: str) -> str:
    """The groups of packages, as `@core` and `@minimal-environment` name them."""
    core = (
        "basesystem bash coreutils dnf filesystem glibc grep iproute less procps-ng rpm sed setup shadow-utils systemd"
    )
    members: Mapping[str, Sequence[str]] = {
        "core": [*core.split(), "util-linux", release_package],
        "standard": ["lsof", "tcpdump", "traceroute"],
    }
    groups = "".join(
        f"<group><id>{group}</id><name>{group}</name><description>{group}</description><default>true</default>"
        "<uservisible>true</uservisible><packagelist>"
        + "".join(f'<packagereq type="mandatory">{name}</packagereq>' for name in names)
        + "</packagelist></group>"
        for group, names in members.items()
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<comps>{groups}<environment><id>minimal-environment</id>'
        "<name>Minimal Install</name><description>Basic functionality.</description><display_order>3</display_order>"
        "<grouplist><groupid>core</groupid></grouplist><optionlist><groupid>standard</groupid></optionlist>"
        "</environment></comps>\n"
    )


_TABLES = Tables(
    ROOTS, FIRMWARE_ROOTS, LEFT_OUT, MERGED, KERNEL, REQUIRES, PROVIDES, ADDITIONS, scripts, own_packages, comps
)
