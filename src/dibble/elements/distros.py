"""The one table of distributions: which family they belong to, how their releases are spelt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILIES = {
    "redhat": ("almalinux", "centos", "fedora", "openeuler", "rhel", "rocky"),
    "debian": ("debian", "ubuntu"),
    "suse": ("opensuse",),
    "gentoo": ("gentoo",),
    "arch": ("arch",),
}

_FAMILY_OF = {distro: family for family, distros in FAMILIES.items() for distro in distros}


def family_of(distro: str) -> str | None:
    """The family that maps are keyed by, or None for a distribution without one."""
    return _FAMILY_OF.get(distro)


def release_names(release: str) -> Iterator[str]:
    """The names under which a release stands in a map, the exact one first: `9-stream` also stands for `9`."""
    yield release
    if release.endswith("-stream"):
        yield release.removesuffix("-stream")
