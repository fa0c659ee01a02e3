"""The words of `bootstrap KIND …`, with which an element begins a system: each package manager reads its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble import registry
from dibble.errors import PackageError
from dibble.words import Words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.packages.base import BootstrapRequest


def bootstrap_words(kind: str) -> Words:
    """A parser for the words of one kind, that one included."""
    parser = Words(f"dib-engine bootstrap {kind}")
    parser.add_argument("kind")
    return parser


def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
    """The words as a request. Raises UsageError; PackageError for a manager that we lack."""
    kind = words[0] if words else ""
    known = registry.names("package_managers")
    if kind not in known:
        names = f"{', '.join(known[:-1])} and {known[-1]}"
        raise PackageError(
            f'dibble has no package manager "{kind}" that could begin a system, only {names}',
            hint="begin with another distribution, or with a file system of this one (DIB_LOCAL_IMAGE)",
        )
    request: BootstrapRequest = registry.load("package_managers", kind).bootstrap_request(words)
    return request
