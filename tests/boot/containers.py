"""Containers that a test has built, entered without any runtime."""

from __future__ import annotations

import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person


def container(person: Person, image: Path, place: Path, command: str) -> str:
    """What a command prints in the system of an image for docker, unpacked and entered without any runtime."""
    with tarfile.open(image) as docker:
        manifest: list[dict[str, Any]] = json.load(docker.extractfile("manifest.json") or pytest.fail("no manifest"))
        docker.extractall(place, filter="data")
    for path in (place, *place.rglob("*")):
        os.chown(path, person.uid, person.gid, follow_symlinks=False)
    layers = " ".join(str(place / layer) for layer in manifest[0]["Layers"])
    script = (
        f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin; mkdir {place}/root\n"
        f"for layer in {layers}; do tar -C {place}/root -xf $layer; done\n"
        f"mount -t proc proc {place}/root/proc\n"
        f"mkdir -p {place}/root/dev; touch {place}/root/dev/null; ln -sfn /proc/self/fd {place}/root/dev/fd\n"
        f"mount --bind /dev/null {place}/root/dev/null\n"
        f"chroot {place}/root /bin/sh -c '{command}'\n"
        f"umount {place}/root/proc {place}/root/dev/null; rm -rf {place}/root"
    )
    words = ("unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "sh", "-ec", script)
    return person.run(words).stdout
