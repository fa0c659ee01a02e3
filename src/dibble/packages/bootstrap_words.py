"""The words of `bootstrap KIND …`, with which an element begins a system: each package manager reads its own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from dibble import registry
from dibble.errors import PackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.packages.base import BootstrapRequest


class Words(argparse.ArgumentParser):
    """A parser for the words of one kind, that one included."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"dib-engine bootstrap {kind}", add_help=False)
        self.add_argument("kind")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=self.format_usage().strip())


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
