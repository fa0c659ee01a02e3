"""A stand-in for Fedora or one of its kin, made and served as the builds of several files of tests want it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tests.serving import served
from tests.standins.make import key_of, made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person
    from tests.standins.redhat import Distribution

_PORTS = {"fedora": 8871, "centos": 8872}
"""Where they are served: the same address each time lets one file of tests take the steps of another from the cache."""


@contextlib.contextmanager
def mirror(distribution: Distribution, cache: Path, *people: Person) -> Iterator[dict[str, str]]:
    """The variables with which builds of these people find it, while the block runs; its key lies in their homes."""
    place = made(distribution, cache)
    name = distribution.system.name
    for person in people:
        key = key_beside(person, distribution)
        key.write_bytes(key_of(distribution, place).read_bytes())
        os.chown(key, person.uid, person.gid)
    with contextlib.ExitStack() as servers:
        try:
            url = servers.enter_context(served(place, _PORTS[name]))
        except OSError:  # other tests serve it at this moment
            url = servers.enter_context(served(place))
        yield {
            "DIB_DISTRIBUTION_MIRROR": f"{url}/{distribution.mirror}",
            "DIB_YUM_MINIMAL_KEYS": str(key_beside(people[0], distribution)),
        }


def key_beside(person: Person, distribution: Distribution) -> Path:
    """The file with the key that signs the packages, in a person's home directory."""
    return person.home / f"stand-in-{distribution.system.name}.gpg"
