"""A build with a secret: the image opens with it, and nothing else of it is left anywhere."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements, ran

if TYPE_CHECKING:
    from tests.people import Person

pytestmark = pytest.mark.build

SECRET = "a passphrase that nobody else has: 7f3a9c"
LAYOUT = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions: [{name: root, size: 100%}]
- luks:
    name: vault
    base: root
    passphrase: disk
    pbkdf: pbkdf2
    iterations: 1000
    mkfs: {type: ext4, mount: {mount_point: /}}
"""


def files_with(place: Path, text: bytes, since: float = 0) -> list[Path]:
    """The files below a directory in whose names or content a text stands, of those that changed since a moment."""
    found = []
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file() or path.stat().st_ctime < since:
                continue
            if text in os.fsencode(name) or text in path.read_bytes():
                found.append(path)
    return found


def test_a_secret_opens_the_image_and_is_left_nowhere(ordinary_user: Person) -> None:
    place = ordinary_user.directory("secrets")
    elements = SmallElements(ordinary_user, place)
    elements.script("small/install.d/10-look", "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    elements.script("small/cleanup.d/10-look", "env")
    layout, secret = place / "layout.yaml", place / "secret"
    layout.write_text(LAYOUT)
    secret.write_text(SECRET + "\n")
    os.chown(secret, ordinary_user.uid, ordinary_user.gid)
    secret.chmod(0o600)
    os.chown(layout, ordinary_user.uid, ordinary_user.gid)
    variables: dict[str, Any] = {"DIB_BLOCK_DEVICE_CONFIG": layout.as_uri(), "DIBBLE_SECRETS": "disk=secret"}
    words = ("-t", "raw", "-o", "image", "--logfile", "log", "small")

    def image() -> bytes:
        return (place / "image.raw").read_bytes()

    began = time.time() - 1
    assert ran(elements.build(*words, **variables))
    first = image()
    assert b"LUKS\xba\xbe" in first
    events = elements.build(*words, **variables)
    assert not ran(events)
    assert image() == first
    plan = json.loads(elements.run("plan", "-n", "--json", "-t", "raw", "-o", "image", "small", **variables).stdout)
    (volume,) = plan["volumes"]
    assert (volume["kind"], volume["name"], volume["bases"]) == ("LUKS2", "vault", ["root"])
    assert files_with(place, SECRET.encode()) == [secret]
    assert files_with(ordinary_user.cache, SECRET.encode(), began) == []
    secret.write_text("another one\n")
    elements.build(*words, **variables)
    assert image()[1 << 20 :] != first[1 << 20 :], "the outputs of another secret count for nothing"
    secret.unlink()
    done = elements.run("build", "-n", *words, check=False, **variables)
    assert done.returncode == 2
    assert 'cannot read the secret "disk"' in done.stderr
    del variables["DIBBLE_SECRETS"]
    done = elements.run("build", "-n", *words, check=False, **variables)
    assert done.returncode == 2
    assert 'luks "vault" needs the secret "disk", which was not given' in done.stderr
    assert "--secret disk=FILE" in done.stderr
