"""`kill -9` at any moment leaves nothing behind, and a host without any program builds as well."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, printed
from tests.leftovers import left_after_a_while, mounts
from tests.people import leaving_sessions, left_sessions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

MOMENTS = 10
BUILD_S = 40.0
"""About what the build takes here; later moments find it finished, which is right too."""


def start(person: Person, place: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [person.checkout / "dibble", "build", "-o", "image", "debian-minimal", "vm"],
        cwd=place,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=None if os.getuid() == person.uid else person.uid,
        group=None if os.getuid() == person.uid else person.gid,
        extra_groups=None if os.getuid() == person.uid else [],
    )


def test_kill_9_at_ten_random_moments_leaves_nothing(ordinary_user: Person) -> None:
    person = ordinary_user
    place = person.directory("killed")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    before = mounts()
    # Another time makes every step new, so that there is something to interrupt.
    epoch = str(1_700_000_000 + int(time.time()) % 1_000_000)
    with leaving_sessions(person):
        for number in range(MOMENTS):
            delay = chance.uniform(number, number + 1) * BUILD_S / MOMENTS
            mark = f"DIBBLE_TEST_MARK={uuid.uuid4()}"
            env = person.environment(SOURCE_DATE_EPOCH=epoch, **dict([mark.split("=")]))
            process = start(person, place, env)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            status = process.wait()
            words = f"moment {number}, {delay:.2f} s, seed {seed}"
            assert left_after_a_while(mark) == [], words
            assert mounts() == before, words
            if status == 0:
                break  # it was quicker
            assert status == -signal.SIGKILL, words
            left = {path.name for path in place.iterdir() if not path.name.startswith(".")}
            if "image.qcow2" in left:  # it was quicker, and was only clearing up: what has its final name is whole
                subprocess.run(["qemu-img", "check", "-q", place / "image.qcow2"], check=True)
                assert left <= {"image.qcow2", "image.d"}, words
                break
            assert left == set(), words
        env = person.environment(SOURCE_DATE_EPOCH=epoch, PATH="")
        person.dibble("build", "-o", "image", "debian-minimal", "vm", cwd=place, env=env)
    assert sorted(path.name for path in place.iterdir()) == sorted({"image.qcow2", "image.d"} | _older(place))
    subprocess.run(["qemu-img", "check", "-q", place / "image.qcow2"], check=True)
    assert left_sessions(person) == [], "the next build has swept up"


def _older(place: Path) -> set[str]:
    """An image of a build that was finished before its moment came, kept under its date."""
    return {path.name for path in place.glob("image-*.qcow2")}


def test_a_host_without_programs_builds(ordinary_user: Person) -> None:
    """Nothing on PATH: all that runs comes from the tools tree. newuidmap is found where it is installed."""
    person = ordinary_user
    place = person.directory("no-path")
    env = person.environment(PATH="/nonexistent", SOURCE_DATE_EPOCH=str(1_600_000_000 + int(time.time()) % 1_000_000))
    done = person.dibble("build", "-t", "raw", "-o", "image", "debian-minimal", "vm", cwd=place, env=env)
    assert "Cached" not in done.stdout, "every step has run"
    assert (place / "image.raw").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts on the host")
@pytest.mark.parametrize("who", ["ourselves", "ordinary_user"])
def test_mounts_below_home_and_beside_the_image_are_no_obstacle(who: str, request: pytest.FixtureRequest) -> None:
    person: Person = request.getfixturevalue(who)
    elements = SmallElements(person, person.directory("mounted"))
    elements.script("small/cleanup.d/50-beside", "echo beside > beside.txt\nmkdir -p sub\necho in > sub/in.txt\nls")
    elements.script("small/cleanup.d/40-before", "echo before > gone.txt\necho before > sub/before.txt")
    elements.script("small/cleanup.d/60-after", "cat beside.txt sub/in.txt gone.txt\nrm gone.txt\nmv sub/before.txt .")
    point = elements.place / "elsewhere"
    point.mkdir()
    (elements.place / "sub").mkdir()
    for path in (point, elements.place / "sub"):
        os.chown(path, person.uid, person.gid)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        events = elements.build("small")
    finally:
        subprocess.run(["umount", point], check=True)
    assert {"elements", "elsewhere", "sub", "beside.txt"} <= set(printed(events, "cleanup.d/50-beside"))
    assert (elements.place / "beside.txt").read_text() == "beside\n"
    assert (elements.place / "sub/in.txt").read_text() == "in\n"
    assert printed(events, "cleanup.d/60-after") == ["beside", "in", "before"]
    left = {path.name for path in elements.place.iterdir()}
    assert left == {"elements", "elsewhere", "sub", "beside.txt", "before.txt", "small.tar"}
    assert {path.name for path in (elements.place / "sub").iterdir()} == {"in.txt"}


def test_the_cache_may_lie_beside_the_image(ordinary_user: Person) -> None:
    """Outside scripts see the output directory through an overlay, which must not take the cache away for good."""
    elements = SmallElements(ordinary_user, ordinary_user.directory("beside"))
    elements.script("small/cleanup.d/50-outside", "ls > /dev/null\necho one > left\necho two > gone")
    elements.script("small/cleanup.d/60-outside", "cat left gone\necho more >> left\nrm gone")
    cache = elements.place / "cache"
    words = ("-n", "-t", "raw", "small")
    elements.run("build", *words, DIB_IMAGE_CACHE=str(cache))
    assert (elements.place / "small.raw").stat().st_size > 100 << 20
    assert (elements.place / "left").read_text() == "one\nmore\n"
    assert not (elements.place / "gone").exists()
