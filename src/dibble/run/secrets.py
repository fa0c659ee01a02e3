"""Reading the files of a build's secrets, before it enters any namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.disk.secrets import Secret
    from dibble.store.places import Store

_MOST = 8 << 20
"""Bytes of a key file that cryptsetup takes (cryptsetup(8), NOTES ON PASSPHRASE PROCESSING)."""


def read_secrets(files: Mapping[str, Path], store: Store) -> dict[str, Secret]:
    """The secrets by name. Raises UsageError for a file that cannot be read, is empty or too large."""
    return {name: _read(name, path, store) for name, path in files.items()}


def _read(name: str, path: Path, store: Store) -> Secret:
    from dibble.disk.secrets import Secret
    from dibble.store.marks import mark_of

    try:
        with path.open("rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(
            f'cannot read the secret "{name}" in {path}: {error.strerror}', hint="give --secret NAME=FILE"
        ) from error
    if not content.strip(b"\n") or len(content) > _MOST:
        what = "is empty" if len(content) <= _MOST else f"is larger than {_MOST >> 20} MiB"
        raise UsageError(
            f'the file {path} of the secret "{name}" {what}', hint="write the passphrase or the key into it"
        )
    return Secret(name, mark_of(store, content), content)
