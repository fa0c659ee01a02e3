"""Times dibble beside what a user would take instead, in one run, and prints ratios.

    benchmarks/compare.py [--rounds 3] [--suite trixie] [--work /var/tmp/dibble-benchmark] [--without dib]

Needs root (diskimage-builder does), a Debian host and a mirror; installs mmdebstrap, debootstrap and the others' tools
where they are missing. The programs take turns, each round in another order, with every download in a local cache and
nothing else: no unpacked package, no layer. dibble's tools tree counts as installed, as the others' tools are;
`dibble, first build` makes that as well. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.proxy import caching_proxy  # noqa: E402

from dibble.packages.debian_sources import host_mirrors  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

DIB_VERSION = "3.43.0"
HOST_PACKAGES = (
    "debootstrap", "mmdebstrap", "qemu-utils", "kpartx", "dosfstools", "gdisk", "e2fsprogs", "sudo", "xz-utils",
)  # fmt: skip
DOWNLOADS = ("blobs", "repositories", "locks")


@dataclass
class Contender:
    """One way to build. `prepare` is not timed."""

    name: str
    prepare: Callable[[], None]
    run: Callable[[], None]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Benchmark:
    def __init__(self, work: Path, suite: str, proxy: str) -> None:
        self.work = work
        self.suite = suite
        mirrors = host_mirrors()
        self.mirror, self.security = mirrors.archive, mirrors.security
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "USER", "LOGNAME")},
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "http_proxy": proxy,
            "DIB_RELEASE": suite,
            "DIB_DISTRIBUTION_MIRROR": self.mirror,
            "DIB_DEBIAN_SECURITY_MIRROR": self.security,
        }
        self.cache = work / "dibble-cache"
        self.output = work / "output"
        self.packages: list[str] = []

    def call(self, *argv: str | Path, **more: str) -> str:
        log = self.work / "last.log"
        with log.open("w+") as file:
            done = subprocess.run(
                list(map(str, argv)),
                env={**self.environment, **more},
                cwd=self.output,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
            file.seek(0)
            text = file.read()
        if done.returncode:
            sys.exit(f"{argv} ended with {done.returncode}\n{text[-3000:]}")
        return text

    # --- dibble

    def dibble(self) -> None:
        self.call(ROOT / "dibble", "build", "debian-minimal", "-o", "dibble", DIB_IMAGE_CACHE=str(self.cache))

    def forget(self, *kept: str) -> None:
        """Leave only what `kept` names of dibble's cache."""
        for path in self.cache.iterdir() if self.cache.is_dir() else ():
            if path.name not in kept:
                shutil.rmtree(path)

    def list_packages(self) -> None:
        """The names of the packages in dibble's image, which mmdebstrap gets too."""
        self.call(
            ROOT / "dibble", "build", "debian-minimal", "-o", "list", "-t", "tar", DIB_IMAGE_CACHE=str(self.cache)
        )
        status = subprocess.run(
            ["tar", "xOf", self.output / "list.tar", "./var/lib/dpkg/status"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        self.packages = [line.split(": ", 1)[1] for line in status.splitlines() if line.startswith("Package: ")]

    # --- the others

    def mmdebstrap(self) -> None:
        target = self.output / "mmdebstrap.tar"
        target.unlink(missing_ok=True)
        sources = [
            f"deb {self.mirror} {self.suite} main",
            f"deb {self.mirror} {self.suite}-updates main",
            f"deb {self.security} {self.suite}-security main",
        ]
        packages = f"--include={','.join(self.packages)}"
        self.call("mmdebstrap", "--variant=apt", packages, self.suite, target, *sources)

    def install_dib(self) -> None:
        venv = self.work / "dib-venv"
        if not (venv / "bin" / "disk-image-create").exists():
            self.call(sys.executable, "-m", "venv", venv)
            proxies = {name: value for name, value in os.environ.items() if name.lower() in ("https_proxy", "no_proxy")}
            pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            self.environment_for_pip(venv, {**proxies, **pip})

    def environment_for_pip(self, venv: Path, more: dict[str, str]) -> None:
        wanted = [f"diskimage-builder=={DIB_VERSION}", "setuptools<80"]
        environment = {**self.environment, **more}
        environment.pop("http_proxy")
        subprocess.run([venv / "bin" / "pip", "install", "-q", *wanted], env=environment, check=True)

    def dib(self) -> None:
        for path in self.output.glob("dib.*"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
        program = self.work / "dib-venv" / "bin" / "disk-image-create"
        search = f"{program.parent}:{self.environment['PATH']}"
        cache = str(self.work / "dib-cache")
        self.call(program, "-t", "qcow2", "-o", "dib", "debian-minimal", PATH=search, DIB_IMAGE_CACHE=cache)


def install_host_packages() -> None:
    def is_missing(name: str) -> bool:
        return bool(subprocess.run(["dpkg", "-s", name], check=False, capture_output=True).returncode)

    missing = [name for name in HOST_PACKAGES if is_missing(name)]
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
        subprocess.run(["apt-get", "-qq", "-y", "install", *missing], check=True, env=environment)


def contenders(bench: Benchmark, without: set[str]) -> list[Contender]:
    def nothing() -> None:
        """Needs no preparation."""

    found = [
        Contender("dibble (qcow2)", lambda: bench.forget(*DOWNLOADS, "tools"), bench.dibble),
        Contender("dibble again, nothing changed", nothing, bench.dibble),
        Contender("dibble, first build (makes its tools tree)", lambda: bench.forget(*DOWNLOADS), bench.dibble),
    ]
    if "mmdebstrap" not in without:
        found.append(Contender("mmdebstrap (same packages, tar)", nothing, bench.mmdebstrap))
    if "dib" not in without:
        found.append(Contender(f"diskimage-builder {DIB_VERSION} (qcow2)", nothing, bench.dib))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-benchmark"))
    parser.add_argument("--without", action="append", default=[], choices=["mmdebstrap", "dib"])
    options = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("benchmarks/compare.py: needs root, because diskimage-builder does")
    install_host_packages()
    options.work.mkdir(parents=True, exist_ok=True)
    with caching_proxy(options.work / "proxy") as proxy:
        bench = Benchmark(options.work, options.suite, proxy)
        bench.output.mkdir(exist_ok=True)
        if "dib" not in options.without:
            bench.install_dib()
        print("downloading: one untimed build each", flush=True)
        bench.list_packages()
        taking_part = contenders(bench, set(options.without))
        for contender in taking_part[2:]:
            contender.prepare()
            contender.run()
        for number in range(options.rounds):
            # `again` needs the build before it; the rest may stand in any order.
            order = [taking_part[:2], *([one] for one in taking_part[2:])]
            order = order[number % len(order) :] + order[: number % len(order)]
            for contender in (one for group in order for one in group):
                contender.prepare()
                os.sync()
                began = time.monotonic()
                contender.run()
                contender.seconds.append(time.monotonic() - began)
                print(f"round {number + 1}: {contender.name}: {contender.seconds[-1]:.1f} s", flush=True)
    report(taking_part, bench)


def report(taking_part: list[Contender], bench: Benchmark) -> None:
    ours = taking_part[0].median
    rounds = len(taking_part[0].seconds)
    print(f"\n{len(bench.packages)} packages of {bench.suite}, {os.cpu_count()} cores, {rounds} rounds")
    print("\n| what | median s | min-max s | dibble's share |\n|---|---|---|---|")
    for contender in taking_part:
        low, high = min(contender.seconds), max(contender.seconds)
        print(f"| {contender.name} | {contender.median:.1f} | {low:.1f}-{high:.1f} | {ours / contender.median:.2f}x |")
    sizes = {path.name: path.stat().st_size for path in sorted(bench.output.glob("*.qcow2"))}
    for name, size in sizes.items():
        print(f"\n{name}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
