"""Makes stand-ins for distributions that cannot be reached, and serves them.

python -m tests.standins make [NAME...]    makes them in the cache of the tests
python -m tests.standins serve [NAME...]   makes and serves them on 127.0.0.1, and says what to build with
python -m tests.standins matrix FILE OUT   makes and serves those that a matrix file asks for, and writes it with them
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.recipe.read import parse
from dibble.sandbox.tools import host_arch
from tests.people import shared_cache
from tests.serving import served
from tests.standins import arch as arch_linux
from tests.standins import cloud_images, gentoo, redhat, suse, ubuntu
from tests.standins.make import key_of, made
from tests.standins.matrix import elements_in, with_mirrors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class StandIn:
    """What is to be served; `mirror` is a path on the server, `variable` the one that names the `key` to a build.

    `more` are further variables. An image for clouds has all its variables from `settings`, by the server's address.
    """

    place: Path
    mirror: str
    variable: str
    key: Path
    more: Mapping[str, str] = field(default_factory=dict)
    settings: Callable[[str], Mapping[str, str]] | None = None

    def variables(self, address: str) -> dict[str, str]:
        """With which a build finds it at the address of a server."""
        if self.settings:
            return dict(self.settings(address))
        url = f"{address}/{self.mirror}".rstrip("/")
        return {**self.more, "DIB_DISTRIBUTION_MIRROR": url, self.variable: str(self.key)}


def _of_rpm(distribution: redhat.Distribution) -> StandIn:
    place = made(distribution, shared_cache())
    variable = "DIB_ZYPPER_KEYS" if distribution.system.name == "opensuse" else "DIB_YUM_MINIMAL_KEYS"
    return StandIn(place, distribution.mirror, variable, key_of(distribution, place))


def _of_ubuntu(arch: str) -> StandIn:
    archive = ubuntu.made(shared_cache(), arch)
    return StandIn(archive.place, archive.mirror, "DIB_APT_KEYRING", archive.key)


def _of_arch(arch: str) -> StandIn:
    mirror = arch_linux.made(shared_cache(), arch)
    return StandIn(mirror.place, "", "DIB_PACMAN_KEYS", mirror.key)


def _of_gentoo(arch: str) -> StandIn:
    mirror = gentoo.made(shared_cache(), arch)
    profile = {"GENTOO_PROFILE": f"default/linux/{arch}/23.0/{gentoo.STAGE}"}
    return StandIn(mirror.place, "", "GENTOO_RELEASE_KEYS", mirror.key, profile)


def _of_image(name: str) -> StandIn:
    image = cloud_images.made(name, shared_cache())
    return StandIn(image.web, "", "", image.key, settings=lambda url: cloud_images.variables(image, url, image.key))


KNOWN: dict[str, Callable[[str], StandIn]] = {
    "arch": _of_arch,
    "centos": lambda arch: _of_rpm(redhat.centos(arch=arch)),
    "fedora": lambda arch: _of_rpm(redhat.fedora(arch=arch)),
    "gentoo": _of_gentoo,
    "opensuse": lambda arch: _of_rpm(suse.leap(arch=arch)),
    "ubuntu": _of_ubuntu,
    **{f"{name}-image": functools.partial(lambda name, _: _of_image(name), name) for name in cloud_images.IMAGES},
}
ELEMENTS = {
    "arch": ("arch-minimal",),
    "centos": ("centos-minimal",),
    "fedora": ("fedora-minimal",),
    "gentoo": ("gentoo",),
    "opensuse": ("opensuse-minimal",),
    "ubuntu": ("ubuntu-minimal",),
    **{f"{name}-image": ({"debian": "debian-cloud-image"}.get(name, name),) for name in cloud_images.IMAGES},
}
"""What builds each of them."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.standins")
    parser.add_argument("verb", choices=("make", "serve", "matrix"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(KNOWN)}; all of them unless given; or FILE and OUT"
    )
    parser.add_argument("--arch", default=host_arch(), help="the architecture, as Debian calls it (%(default)s)")
    parser.add_argument("--port", type=int, default=8044, help="of the first; the others follow (%(default)s)")
    options = parser.parse_intermixed_args()  # `matrix --port N FILE OUT` too
    matrix: Any = None
    if options.verb == "matrix":
        if len(options.names) != 2:
            parser.error("matrix takes two files: the one to be read, and the one to be written")
        source, written = map(Path, options.names)
        matrix = parse(source.read_text(), str(source), "matrix").data
        elements = set(elements_in(matrix))
        options.names = [name for name in KNOWN if not elements.isdisjoint(ELEMENTS[name])]
    if unknown := sorted(set(options.names) - set(KNOWN)):
        parser.error(f"there is no stand-in for {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    found = {}
    for name in options.names if matrix else options.names or KNOWN:
        began = time.monotonic()
        found[name] = KNOWN[name](options.arch)
        print(f"{name}: {found[name].place}, {time.monotonic() - began:.1f} s", flush=True)
    if options.verb == "make":
        return
    variables: dict[str, dict[str, str]] = {}
    with contextlib.ExitStack() as servers:
        for number, (name, one) in enumerate(found.items()):
            address = servers.enter_context(served(one.place, options.port + number))
            own = one.variables(address)
            variables |= dict.fromkeys(ELEMENTS[name], own)
            if not matrix:
                print(" ".join(f"{key}={value}" for key, value in own.items()), "\\")
                print(f"    ./dibble build -a {options.arch} {ELEMENTS[name][0]} vm", flush=True)
        if matrix:
            data = with_mirrors(matrix, source.parent, lambda element: variables.get(element, {}))
            written.write_text(json.dumps(data, indent=1) + "\n")  # which is YAML, too
            print(f"./dibble matrix {written}", flush=True)
        threading.Event().wait()


main()
