"""Marks that stand for secrets in keys: a MAC under a key of the store's own, which never leaves it.

A plain digest in a key, which a remote cache sees, would let anybody try passphrases at no cost.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import tempfile
from typing import TYPE_CHECKING

from dibble.store.places import store_error

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.store.places import Store

FILE = "marks.key"
_KEY_BYTES = 32


def mark_of(store: Store, content: bytes) -> str:
    """The mark of a secret's content, in hexadecimal digits. Raises StoreError where the store's key cannot be had."""
    path = store.root / FILE
    try:
        key = path.read_bytes() if path.exists() else _new_key(path)
    except OSError as error:
        raise store_error(error, store.root) from error
    return hmac.digest(key, content, "sha256").hex()


def _new_key(path: Path) -> bytes:
    """The key, made now; that of another process if it was quicker."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)  # noqa: PTH108
    return path.read_bytes()
