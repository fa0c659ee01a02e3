"""What was at fault when a script failed, as far as it can be seen: a full disk, a server that does not answer."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from dibble.errors import HookFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dibble.errors import DibbleError

ROOM = 1 << 20
"""Bytes: a file system with less than this left took no more of what the script wrote."""
PROBE_SECONDS = 2.0
_PROBES = 4
_DNS = ":53"


def look(error: DibbleError, places: Iterable[Path], reached: Sequence[str], unreachable: str) -> None:
    """Note on the error what is to be seen right after the step has ended.

    `places` are directories of file systems that it wrote to. `reached` are the servers that a script connected to, as
    `ADDRESS:PORT`; `unreachable` is one that did not answer the engine when it fetched something for the script. Takes
    at most some seconds, and that only for a script that used the network.
    """
    full = next((place for place in places if _is_full(place)), None)
    if full is not None:
        error.system_error = errno.ENOSPC
        error.hint = error.hint or f"no room is left in {full}: free some, or name another place with --image-cache"
    elif isinstance(error, HookFailed):
        error.unreachable = unreachable or _silent(reached)
        if error.unreachable and not error.hint:
            error.hint = f"{error.unreachable} does not answer: check the network and the proxy variables"


def _is_full(place: Path) -> bool:
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    no_names = found.f_files > 0 and found.f_favail == 0
    return found.f_blocks > 0 and (found.f_bavail * found.f_frsize < ROOM or no_names)


def _silent(reached: Sequence[str]) -> str:
    """The first of the servers that takes no connection; where only name servers were asked, no name was found."""
    if reached and all(place.endswith(_DNS) for place in reached):
        return reached[0]
    for place in [place for place in reached if not place.endswith(_DNS)][:_PROBES]:
        host, _, port = place.rpartition(":")
        with contextlib.suppress(ValueError):  # a name, which the engine reached
            address = str(ipaddress.ip_address(host.strip("[]")))
            try:
                socket.create_connection((address, int(port)), PROBE_SECONDS).close()
            except OSError:
                return place
    return ""
