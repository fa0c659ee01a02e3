"""Root trees as hosts: what of ours is brought into one, so that dibble runs in it as on a machine of that kind.

The tree gives the C library, Python and every program of the host; dibble's own code and its libraries are brought. To
a tree whose Python is too old, or that has none, one is brought that runs on any C library.
Downloads are shared between hosts. Layers are not: a layer's key does not know on which host it was made, so with one
store the second host would build nothing and prove nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.recipe.environment import paths_in
from dibble.sandbox.tools import near_mirrors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.fleet.pool import Job

CODE, LIBRARIES, CHECKOUT = Path("/opt/dibble/src"), Path("/opt/dibble/lib"), Path("/opt/dibble/checkout")
"""Where our code, its libraries and, for the row tox, a checkout stand in the tree."""
PYTHON = Path("/opt/dibble/python")
"""Where a Python stands that is brought because the tree has none that is new enough."""
SPEC = "host.json"
OLDEST_PYTHON = (3, 11)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_PASSED = ("TMPDIR", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_STATE_HOME", "DIBBLE_VENV", "DIBBLE_COMMAND")
_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Visit:
    """One command in a host. All paths are this machine's; those in `shown` stand at the same place in the tree."""

    tree: str
    name: str
    directory: str
    """Of the cell: where the command runs, and which it may write to."""
    host_directory: str
    store: str
    """Downloads are taken from it, and what dibble itself needs to be brought."""
    words: tuple[str, ...]
    """What Python runs."""
    environment: Mapping[str, str]
    shown: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    """Files that variables name: they too stand at the same place, unless the tree has something there."""
    checkout: str = ""


def in_tree(job: Job, words: Sequence[str], checkout: Path | None = None) -> list[str]:
    """The command that runs `python3 WORDS` in the job's host. The cell's directory must be there."""
    assert job.tree is not None
    assert job.host_directory is not None
    given = {name: text for name, text in job.environment.items() if name not in _NOT_PASSED}
    shown = [*given.get("ELEMENTS_PATH", "").split(":"), *job.work.recipe.get("elements-path", ())]
    shown += [given[name] for name in _FILES if name in given]
    own = {str(name): str(value) for name, value in (job.work.recipe.get("environment") or {}).items()}
    visit = Visit(
        tree=str(job.tree),
        name=job.work.cell.host,
        directory=str(job.directory),
        host_directory=str(job.host_directory),
        store=str(job.store),
        words=tuple(words),
        environment={
            **given,
            **near_mirrors(given),
            "PATH": _PATH,
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "DIB_IMAGE_CACHE": str(job.host_directory / "store"),
            "PYTHONPATH": f"{CODE}:{LIBRARIES}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        shown=tuple(dict.fromkeys(path for path in shown if path)),
        named=tuple(paths_in({**given, **own})),
        checkout=str(checkout or ""),
    )
    place = job.directory / SPEC
    place.write_text(json.dumps({name: getattr(visit, name) for name in Visit.__slots__}), encoding="utf-8")
    return [sys.executable, "-P", "-s", "-m", "dibble.fleet.nested", str(place)]
