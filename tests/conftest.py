"""What all tests share: the people who run dibble, their caches, and time limits."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import people

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

# A machine that tests is busy: how long an example takes says nothing.
settings.register_profile("dibble", deadline=None)
settings.load_profile("dibble")

# Seconds after which a test of a kind has hung.
TIME_LIMITS = {"unit": 60, "lint": 600, "contract": 600, "build": 3600, "boot": 3600}
# Where these tests run in a shell's background, what they start would not hear an interruption.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Where Debian keeps e2fsck and its like, which an ordinary user's PATH leaves out.
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
DEBIAN_PACKAGES = Path(__file__).parent / "debian-packages"
# Which file comes right behind which other, whose images it builds as well: later, their layers have been removed.
BEHIND = {"build/test_ramdisk.py": "boot/test_ramdisk_boot.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its time limit, and every file its place."""
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        first.setdefault(_file(item), number)
    items.sort(key=lambda item: first.get(BEHIND.get(_file(item), ""), first[_file(item)]))
    for item in items:
        kinds = [kind for kind in TIME_LIMITS if item.get_closest_marker(kind)]
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(max([TIME_LIMITS[kind] for kind in kinds], default=60)))


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()


@pytest.fixture(autouse=True)
def _programs(request: pytest.FixtureRequest) -> None:
    if any(request.node.get_closest_marker(kind) for kind in ("contract", "build", "boot")):
        request.getfixturevalue("debian_packages")


@pytest.fixture(scope="session")
def debian_packages() -> None:
    """Install what tests call on the host, where we may: as root on a Debian."""
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return
    names = [line.partition("#")[0].strip() for line in DEBIAN_PACKAGES.read_text().splitlines()]
    names = [name for name in names if name]
    with Path("/tmp/dibble-test-packages.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${Status}\n", *names],
            check=False,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        present = {line.split()[0] for line in known if line.endswith(" installed")}
        missing = [name for name in names if name not in present]
        if missing:
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (["update"], ["--yes", "--no-install-recommends", "install", *missing]):
                subprocess.run(["apt-get", "-qq", *command], env=environment, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def test_cache() -> Path:
    """The cache of whoever runs the tests, kept between runs (DIBBLE_TEST_CACHE, else ~/.cache/dibble-test)."""
    cache = people.shared_cache()
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@pytest.fixture(scope="module", autouse=True)
def _small_disks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each file of tests remove what it built, and leave of the caches what the next is most likely to want.

    Disks are not endless. DIBBLE_TEST_KEEP leaves what was built where it is, to look at it.
    """
    yield
    if os.environ.get("DIBBLE_TEST_KEEP"):
        return
    builders = people.remove_directories()
    for person in builders if request.path.parent.name in ("boot", "build") else ():
        if (person.cache / "layers").is_dir():
            person.dibble("cache", "gc", "--max-size", "4")


@pytest.fixture(scope="session")
def ourselves() -> Person:
    """Whoever runs the tests, root in CI."""
    return people.ourselves()


@pytest.fixture(scope="session")
def ordinary_user(debian_packages: None, test_cache: Path) -> Iterator[Person]:
    """An ordinary user with subordinate ids, a checkout of this repository and a cache."""
    person = people.ordinary_user()
    yield person
    if os.getuid() == 0:
        people.share_downloads(test_cache, person)
