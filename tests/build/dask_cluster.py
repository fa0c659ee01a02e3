"""A Dask cluster for tests: a scheduler, and workers that are machines of their own as far as the network goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.people import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

DASK = (sys.executable, "-s", "-m", "dask")


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


@dataclass
class DaskCluster:
    """The scheduler listens on a bridge of this machine; each worker is in a network namespace behind a veth."""

    person: Person
    place: Path
    number: int = field(default_factory=lambda: os.getpid() % 250)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"10.213.{self.number}.1"

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:8786"

    @property
    def bridge(self) -> str:
        return f"dibble{self.number}"

    def up(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"{self.host}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        self.schedule()

    def down(self) -> None:
        for name in list(self.running):
            self.kill(name)
        for name in self.namespaces:
            ip("netns", "delete", name, check=False)
        ip("link", "delete", self.bridge, check=False)

    def schedule(self) -> None:
        """Start the scheduler; returns at once, workers and clients wait for it."""
        self._start("scheduler", [*DASK, "scheduler", "--host", self.host, "--no-dashboard"])

    def work(self, name: str, *, code: Path | None = None, nanny: bool = False) -> None:
        """Start a worker in a network of its own, with a cache of its own; `code` is a dibble other than ours.

        `nanny` has a process beside it that starts it again, as is Dask's habit.
        """
        space = f"{self.bridge}-{name}"
        if space not in self.namespaces:
            self._network(space, len(self.namespaces) + 2)
        cache = self.place / name / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        self.person.dibble("tools", "fetch", "core")  # here, so that workers on one cache do not fetch it at once
        for part in ("tools", "blobs", "packages"):  # they do not come from a remote cache
            (self.person.cache / part).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                (cache / part).symlink_to(self.person.cache / part)
        argv = [
            *("ip", "netns", "exec", space, *DASK, "worker", self.address, "--name", name, "--nthreads", "1"),
            *("--local-directory", str(self.place / name), "--no-dashboard", *(() if nanny else ("--no-nanny",))),
        ]
        self._start(name, argv, DIB_IMAGE_CACHE=str(cache), PYTHONPATH=str(code or REPOSITORY / "src"))

    def _network(self, space: str, last: int) -> None:
        """A namespace whose only way out is a veth to the bridge."""
        ip("netns", "add", space)
        self.namespaces.append(space)
        outer = f"{self.bridge}v{last}"
        ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", outer, "master", self.bridge, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"10.213.{self.number}.{last}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            ip("-n", space, *words)

    def kill(self, name: str) -> None:
        """As a power cut does."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def left(self, name: str) -> list[Path]:
        """Files that a worker holds of cells."""
        return [path for path in (self.place / name).glob("dask-scratch-space/*/dibble/cells/**/*") if path.is_file()]

    def _start(self, name: str, argv: list[str], **variables: str) -> None:
        with (self.place / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                argv,
                env=self.person.environment(PATH=os.environ["PATH"], **variables),
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextlib.contextmanager
def dask_cluster(person: Person, place: Path) -> Iterator[DaskCluster]:
    """A cluster with a scheduler and no worker. Skips where network namespaces cannot be made."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip(8)")
    found = DaskCluster(person, place)
    found.down()  # what a run left that was killed
    try:
        found.up()
        yield found
    finally:
        found.down()
