"""Pairs of host and target that cannot be, found out before anything runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from dibble.elements.find import Catalogue, find_elements, unusable_because
from dibble.errors import HostError, RecipeError, Where
from dibble.registry import unknown
from dibble.sandbox import binfmt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dibble.recipe.model import Request

ARCHITECTURES = {
    # What the distributions publish today, as their download pages and their archives' lists have it; Debian's names.
    # An axis value says otherwise with `architectures`.
    "arch": ("amd64", "arm64"),
    "centos": ("amd64", "arm64", "ppc64el", "s390x"),
    "debian": ("amd64", "arm64", "armel", "armhf", "i386", "mips64el", "ppc64el", "riscv64", "s390x"),
    "fedora": ("amd64", "arm64", "ppc64el", "s390x"),
    "openeuler": ("amd64", "arm64", "loong64", "ppc64el", "riscv64"),
    "opensuse": ("amd64", "arm64", "ppc64el", "s390x"),
    "rhel": ("amd64", "arm64", "ppc64el", "s390x"),
    "rocky": ("amd64", "arm64", "ppc64el", "s390x"),
    "almalinux": ("amd64", "arm64", "ppc64el", "s390x"),
    "ubuntu": ("amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"),
}
_VARIANTS = ("-minimal", "-container", "-systemd-container")


def unsupported(request: Request, architectures: Sequence[str], where: Where, *, here: bool = True) -> str:
    """Why this cannot be built here, as one sentence that begins with no name of a cell; empty when it can.

    `architectures` are those that the matrix says the distribution has, if any. `here` is False where other machines
    build: which programs they run is for them to say. Raises RecipeError for an element that
    there is not, UsageError for an architecture that is none.
    """
    catalogue = _catalogue(request.element_path)
    for name in request.elements:
        if name not in catalogue.elements:
            error = unknown("element", name, sorted(catalogue.elements))
            raise RecipeError(error.message, hint=error.hint, where=where)
        reason = unusable_because(catalogue.elements[name])
        if reason:
            return f"{name}: {reason}"
    for name in request.elements:
        distribution = name
        for ending in _VARIANTS:
            distribution = distribution.removesuffix(ending)
        known = tuple(architectures) or ARCHITECTURES.get(distribution)
        if known and request.arch not in known:
            return f"there is no {distribution} for {request.arch}"
    return _cannot_run(request.arch) if here and binfmt.is_foreign(request.arch) else ""


@functools.cache
def _catalogue(path: tuple[Path, ...]) -> Catalogue:
    return find_elements(path)


@functools.cache
def _cannot_run(arch: str) -> str:
    try:
        binfmt.check_can_run(arch)
    except HostError as error:
        return error.message
    return ""
