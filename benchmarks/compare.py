"""Times dibble beside what a user would take instead, in one run, and prints ratios.

    benchmarks/compare.py [--rounds 3] [--suite trixie] [--work /var/tmp/dibble-benchmark] [--without dib] [--explain]

Needs root (diskimage-builder does), a Debian host and a mirror; installs mmdebstrap, debootstrap and the others' tools
where they are missing. The programs take turns, each round in another order, with every download in a local cache and
nothing else: no unpacked package, no layer. All install the packages of dibble's debian-minimal, among them Debian's
kernel with its initramfs, and run one script at the end; all but mmdebstrap write a compressed qcow2. The tools tree of
dibble counts as installed, as the others' tools are; `dibble, first build` makes that as well.

Then one line of the last script is edited: dibble and mkosi (Incremental=yes) build again; for diskimage-builder that
is a whole build. Only ratios of one run mean something. `--explain` prints where the time of a cold build goes, as the
events of dibble tell it (docs/performance.md).
"""

from __future__ import annotations

import argparse
import json
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

from benchmarks.explain import explained  # noqa: E402
from benchmarks.mkosi import Mkosi, MkosiMissing  # noqa: E402
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
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    image: Path | None = None
    """What it writes; the next that is prepared may remove it."""
    found: tuple[int, int] | None = None
    """The image's size in bytes and its number of packages."""

    def look(self) -> None:
        """Look at the image, once."""
        if self.image is not None and self.found is None:
            self.found = self.image.stat().st_size, len(packages_in(self.image))

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
        self.packages_of_dib: list[str] = []
        self.elements = work / "elements"
        self.edits = 0

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

    def edit(self) -> None:
        """Another line in the script of the last element."""
        self.edits += 1
        script = self.elements / "last" / "install.d" / "90-last"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"#!/bin/bash\nset -eu\necho {self.edits} > /etc/web\n")
        script.chmod(0o755)

    def dibble(self, *more: str, name: str = "dibble") -> str:
        (self.output / f"{name}.qcow2").unlink(missing_ok=True)
        words = ("build", "debian-minimal", "last", "-o", name, *more)
        return self.call(ROOT / "dibble", *words, DIB_IMAGE_CACHE=str(self.cache), ELEMENTS_PATH=str(self.elements))

    def dibble_as_dib(self) -> None:
        """With the packages of diskimage-builder's image: its debian-minimal has more than ours."""
        self.dibble("-p", ",".join(self.packages_of_dib), name="dibble-as-dib")

    def dibble_raw(self) -> None:
        (self.output / "dibble.raw").unlink(missing_ok=True)
        self.dibble("-t", "raw")

    def forget(self, *kept: str) -> None:
        """Leave only what `kept` names of dibble's cache.

        The rest is renamed and removed at the end: ext4 gives out inodes slowly just after many were freed.
        """
        trash = self.work / "trash"
        trash.mkdir(exist_ok=True)
        for path in self.cache.iterdir() if self.cache.is_dir() else ():
            if path.name not in kept and path.is_dir():
                path.rename(trash / f"{time.monotonic_ns()}-{path.name}")
        answers = self.cache / "repositories" / "answers"  # package lists are downloads, what apt made of them is not
        if answers.exists():
            answers.rename(trash / f"{time.monotonic_ns()}-answers")

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
        words = ("-t", "qcow2", "-o", "dib", "-p", ",".join(self.packages), "debian-minimal", "last")
        self.call(program, *words, PATH=search, DIB_IMAGE_CACHE=cache, ELEMENTS_PATH=str(self.elements))


def install_host_packages() -> None:
    def is_missing(name: str) -> bool:
        return bool(subprocess.run(["dpkg", "-s", name], check=False, capture_output=True).returncode)

    missing = [name for name in HOST_PACKAGES if is_missing(name)]
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
        subprocess.run(["apt-get", "-qq", "-y", "install", *missing], check=True, env=environment)


def contenders(bench: Benchmark, without: set[str], mkosi: Mkosi | None) -> list[list[Contender]]:
    """In groups: within one, each needs the build before it."""

    def nothing() -> None:
        """Needs no preparation."""

    def cold() -> None:
        bench.forget(*DOWNLOADS, "tools")

    images = bench.output
    groups = [
        [
            Contender("dibble (qcow2)", cold, bench.dibble, image=images / "dibble.qcow2"),
            Contender("dibble, one line of the last script edited", bench.edit, bench.dibble),
            Contender("dibble again, nothing changed", nothing, bench.dibble),
            Contender("dibble, the same as raw", nothing, bench.dibble_raw),
        ],
        [Contender("dibble, first build (makes its tools tree)", lambda: bench.forget(*DOWNLOADS), bench.dibble)],
    ]
    if "mmdebstrap" not in without:
        groups.append([Contender("mmdebstrap (same packages, tar)", nothing, bench.mmdebstrap)])
    if mkosi is not None:

        def edit() -> None:
            bench.edits += 1
            mkosi.edit(str(bench.edits))

        name = f"mkosi {mkosi.version}"
        groups.append(
            [
                Contender(f"{name} (qcow2)", mkosi.forget, mkosi.build, image=mkosi.image),
                Contender(f"{name}, one line of the last script edited", edit, mkosi.build),
            ]
        )
    if "dib" not in without:
        name = f"diskimage-builder {DIB_VERSION} (qcow2)"
        groups.append([Contender(name, nothing, bench.dib, image=images / "dib.qcow2")])
        groups.append([Contender(AS_DIB, cold, bench.dibble_as_dib, image=images / "dibble-as-dib.qcow2")])
    return groups


AS_DIB = "dibble, the packages of diskimage-builder's image"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-benchmark"))
    parser.add_argument("--without", action="append", default=[], choices=["mmdebstrap", "dib", "mkosi"])
    parser.add_argument("--explain", action="store_true", help="print where the time of a cold build goes, and end")
    options = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("benchmarks/compare.py: needs root, because diskimage-builder does")
    install_host_packages()
    options.work.mkdir(parents=True, exist_ok=True)
    with caching_proxy(options.work / "proxy") as proxy:
        bench = Benchmark(options.work, options.suite, proxy)
        bench.output.mkdir(exist_ok=True)
        bench.edit()
        print("downloading: one untimed build each", flush=True)
        bench.list_packages()
        if options.explain:
            bench.forget(*DOWNLOADS, "tools")
            print(explained(bench.dibble("--json")))
            return
        without = set(options.without)
        if "dib" not in without:
            bench.install_dib()
        mkosi = None if "mkosi" in without else install_mkosi(bench)
        groups = contenders(bench, without, mkosi)
        for group in groups[1:]:
            if group[0].name.startswith("mkosi"):
                continue  # it has built once already
            group[0].prepare()
            group[0].run()
            if group[0].name.startswith("diskimage-builder"):
                bench.packages_of_dib = packages_in(bench.output / "dib.qcow2")
        for number in range(options.rounds):
            order = groups[number % len(groups) :] + groups[: number % len(groups)]
            for contender in (one for group in order for one in group):
                contender.prepare()
                os.sync()
                began = time.monotonic()
                contender.run()
                contender.seconds.append(time.monotonic() - began)
                print(f"round {number + 1}: {contender.name}: {contender.seconds[-1]:.1f} s", flush=True)
                contender.look()
    report([contender for group in groups for contender in group], bench)
    shutil.rmtree(options.work / "trash", ignore_errors=True)


def install_mkosi(bench: Benchmark) -> Mkosi | None:
    """mkosi, ready to build; None, with a line that says why, where it cannot be had."""
    keyring = next(bench.cache.glob("tools/*/fs/usr/share/keyrings/debian-archive-keyring.gpg"), None)
    if keyring is None:
        print("mkosi is left out: no keyring of Debian's archive was found in the tools tree")
        return None
    mkosi = Mkosi(bench.work, bench.suite, (bench.mirror, bench.security), bench.environment)
    try:
        mkosi.install(keyring)
        mkosi.configure(bench.packages)
        mkosi.build()
    except MkosiMissing as error:
        print(f"mkosi is left out: {error}")
        return None
    return mkosi


def report(taking_part: list[Contender], bench: Benchmark) -> None:
    by_name = {contender.name: contender.median for contender in taking_part}
    cold, edited = taking_part[0].median, taking_part[1].median
    rounds = len(taking_part[0].seconds)
    print(f"\n{len(bench.packages)} packages of {bench.suite}, {os.cpu_count()} cores, {rounds} rounds")
    print("\n| what | median s | min-max s | dibble's share | packages | MB |\n|---|---|---|---|---|---|")
    for contender in taking_part:
        low, high = min(contender.seconds), max(contender.seconds)
        ours = edited if "edited" in contender.name else cold
        if contender.name.startswith("diskimage-builder"):
            ours = by_name[AS_DIB]  # its own debian-minimal holds more packages than ours
        share = ours / contender.median
        size = count = ""
        if contender.found is not None:
            size, count = f"{contender.found[0] / 1e6:.0f}", str(contender.found[1] or "")
        print(f"| {contender.name} | {contender.median:.1f} | {low:.1f}-{high:.1f} | {share:.2f}x | {count} | {size} |")


def packages_in(image: Path) -> list[str]:
    """The names of the packages that dpkg knows in an image with one ext4 file system, with or without a table."""
    raw = image.with_suffix(".counted.raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    try:
        table = subprocess.run(["sfdisk", "--json", raw], check=False, capture_output=True, text=True).stdout
        starts = [part["start"] for part in json.loads(table)["partitiontable"]["partitions"]] if table else [0]
        for start in reversed(starts):
            place = f"{raw}?offset={start * 512}"
            argv = ["debugfs", "-R", "cat /var/lib/dpkg/status", place]
            found = subprocess.run(argv, check=False, capture_output=True, text=True, errors="replace").stdout
            stanzas = [stanza for stanza in found.split("\n\n") if "\nStatus: install ok installed\n" in stanza]
            if stanzas:
                return sorted(stanza.partition("Package: ")[2].partition("\n")[0] for stanza in stanzas)
    finally:
        raw.unlink()
    return []


if __name__ == "__main__":
    main()
