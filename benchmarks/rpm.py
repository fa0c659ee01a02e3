"""Times an image of Fedora beside `dnf --installroot` of the same packages with image writing, in one run.

    benchmarks/rpm.py [--rounds 3] [--work /var/tmp/dibble-benchmark/rpm]

Both take the packages of the stand-in for Fedora (tests/standins), check their signatures, have each download in a
local cache and nothing else, and write a compressed qcow2. dnf, rpm, mke2fs and qemu-img are those of the tools tree,
and run in the same namespaces as dibble's. What dibble does besides (elements, partition table, boot loader) is not
taken off its time. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.inside import with_tools  # noqa: E402
from tests.people import ourselves  # noqa: E402
from tests.standins import redhat  # noqa: E402
from tests.standins.mirror import mirror as served_mirror  # noqa: E402

from dibble.sandbox import mounts  # noqa: E402
from dibble.sandbox.tools import host_arch  # noqa: E402

if TYPE_CHECKING:
    from dibble.sandbox.toolbox import Toolbox

KEPT = ("blobs", "repositories", "locks", "tools", "store.json")
WORDS = ("build", "-o", "ours", "fedora-minimal", "vm", "-t")
DATABASE = "usr/lib/sysimage/rpm/"


def dibble(work: Path, environment: dict[str, str], *words: str) -> float:
    """A build with downloads and tools at hand; its seconds."""
    cache = work / "cache"
    for path in cache.iterdir() if cache.is_dir() else ():
        if path.name not in KEPT:
            shutil.rmtree(path)
    began = time.monotonic()
    done = subprocess.run(
        [ROOT / "dibble", *words],
        env={**os.environ, **environment, "DIB_IMAGE_CACHE": str(cache)},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.monotonic() - began


def packages_of(work: Path) -> list[str]:
    """The names of the packages in ours.tar."""
    with tarfile.open(work / "ours.tar") as archive:
        files = [member for member in archive if DATABASE in member.name and member.isreg()]
        content = {Path(member.name).name: archive.extractfile(member).read() for member in files}  # type: ignore[union-attr]

    def inside(toolbox: Toolbox, directory: Path) -> list[str]:
        for name, data in content.items():
            (directory / name).write_bytes(data)
        query = ("rpm", "--dbpath", toolbox.path(directory), "-qa", "--queryformat", "%{NAME}\\n")
        return toolbox.run(query).output.split()

    return sorted(set(with_tools(work / "cache", inside, "rpm")) - {"gpg-pubkey"})


def dnf(work: Path, environment: dict[str, str], release: str, names: list[str]) -> float:
    """The same packages by dnf into a directory, then a file system and a qcow2 of it; seconds."""
    url = f"{environment['DIB_DISTRIBUTION_MIRROR']}/releases/{release}/Everything/x86_64/os/"
    downloads = work / "dnf-cache"
    downloads.mkdir(exist_ok=True)

    def inside(toolbox: Toolbox, directory: Path) -> float:
        tree = directory / "tree"
        tree.mkdir()
        began = time.monotonic()
        mounts.system(tree)
        key = Path(environment["DIB_YUM_MINIMAL_KEYS"])
        shutil.copy(key, directory / "key.gpg")
        shutil.copytree(downloads, directory / "cache")
        command = [
            *("dnf", "-q", "-y", f"--installroot={toolbox.path(tree)}", f"--releasever={release}"),
            *(f"--repofrompath=fedora,{url}", "--repo=fedora", "--setopt=fedora.gpgcheck=1"),
            *(f"--setopt=fedora.gpgkey=file://{toolbox.path(directory / 'key.gpg')}", "--setopt=keepcache=1"),
            *(f"--setopt=cachedir={toolbox.path(directory / 'cache')}", "--setopt=install_weak_deps=0"),
            *("install", *names),
        ]
        toolbox.run(command)
        mounts.unmount_all_below(tree)
        disk, image = directory / "disk", directory / "image"
        with disk.open("wb") as file:
            file.truncate(4 << 30)
        toolbox.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", toolbox.path(tree), toolbox.path(disk)])
        convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd")
        toolbox.run([*convert, toolbox.path(disk), toolbox.path(image)])
        seconds = time.monotonic() - began
        shutil.rmtree(downloads)
        shutil.copytree(directory / "cache", downloads)
        return seconds

    return with_tools(work / "cache", inside, "rpm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-benchmark/rpm"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    person, distribution = ourselves(), redhat.fedora(arch=host_arch())
    release = distribution.system.version
    with served_mirror(distribution, person.cache, person) as variables:
        environment = {**variables, "DIB_RELEASE": release}
        dibble(arguments.work, environment, *WORDS, "tar")  # fetches
        names = packages_of(arguments.work)
        dnf(arguments.work, environment, release, names)
        times: dict[str, list[float]] = {"dibble": [], "dnf": []}
        for number in range(arguments.rounds):
            for who in ("dibble", "dnf") if number % 2 else ("dnf", "dibble"):
                if who == "dnf":
                    seconds = dnf(arguments.work, environment, release, names)
                else:
                    seconds = dibble(arguments.work, environment, *WORDS, "qcow2")
                times[who].append(seconds)
                print(number, who, f"{seconds:.1f}", file=sys.stderr, flush=True)
    ours, theirs = (statistics.median(times[who]) for who in ("dibble", "dnf"))
    print(f"{len(names)} packages; dibble {ours:.1f} s, dnf and image {theirs:.1f} s: {ours / theirs:.2f}x")


if __name__ == "__main__":
    main()
