"""Makes stand-ins for distributions that cannot be reached, and serves them.

python -m tests.standins make [NAME...]    makes them in the cache of the tests
python -m tests.standins serve [NAME...]   makes and serves them on 127.0.0.1, and says what to build with
"""

from __future__ import annotations

import argparse
import functools
import http.server
import time
from typing import TYPE_CHECKING

from tests.people import shared_cache
from tests.standins import redhat
from tests.standins.make import key_of, made

if TYPE_CHECKING:
    from pathlib import Path

    from tests.standins.redhat import Distribution

KNOWN = {"fedora": redhat.fedora, "centos": redhat.centos}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.standins")
    parser.add_argument("verb", choices=("make", "serve"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KNOWN)}; all of them unless given")
    parser.add_argument("--port", type=int, default=8044)
    options = parser.parse_args()
    places = {}
    for name in options.names or KNOWN:
        began = time.monotonic()
        distribution = KNOWN[name]()
        places[name] = (distribution, made(distribution, shared_cache()))
        print(f"{distribution.name}: {places[name][1]}, {time.monotonic() - began:.1f} s")
    if options.verb == "serve":
        _serve(places, options.port)


class _Several(http.server.SimpleHTTPRequestHandler):
    """Shows several directories as one: the first that has a path wins."""

    def __init__(self, *arguments: object, places: tuple[Path, ...]) -> None:
        self._places = places
        super().__init__(*arguments)  # type: ignore[arg-type] # what the server gives

    def translate_path(self, path: str) -> str:
        found = ""
        for place in self._places:
            self.directory = str(place)
            found = super().translate_path(path)
            if place.joinpath(found).exists():
                return found
        return found


def _serve(places: dict[str, tuple[Distribution, Path]], port: int) -> None:
    handler = functools.partial(_Several, places=tuple(place for _, place in places.values()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        for name, (distribution, place) in places.items():
            print(f"DIB_DISTRIBUTION_MIRROR=http://127.0.0.1:{port}/{distribution.mirror} \\")
            print(f"    DIB_YUM_MINIMAL_KEYS={key_of(distribution, place)} ./dibble build {name}-minimal vm")
        server.serve_forever()


main()
