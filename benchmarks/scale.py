"""Cost against size: time and memory of builds of trees of 0.2 to 4 GB, and of 100 to 2,000 packages.

    benchmarks/scale.py [--sizes 0.2,1,4] [--packages 100,500,1000,2000] [--work /var/tmp/dibble-scale]

Trees come out of a tar, half of their bytes random; packages are synthetic (20 files of 2.5 kB each), from a repository
that this program serves, on top of debian-minimal's base. Memory is that of dibble's own processes (the sum of their
proportional set sizes, sampled), the programs that it runs apart. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.unit.debs import File, ar_of, tar_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_BYTES = 64 << 10
PER_PACKAGE, PACKAGE_FILE_BYTES = 20, 2500
UNPACK = """#!/bin/bash
set -eu
mkdir -p "$TARGET_ROOT"/{etc,proc,sys,dev,tmp,root,var/log}
tar -xf %s -C "$TARGET_ROOT"
"""


@dataclass(frozen=True)
class Cost:
    """`seconds` of the whole build; `own` and `tools` are peaks in bytes; `steps` seconds by step or activity."""

    seconds: float
    own: int
    tools: int


def measured(argv: list[str], env: dict[str, str], cwd: Path) -> Cost:
    """Run a build to its end, looking at the memory of all its processes ten times a second."""
    log = cwd / "last.log"
    began = time.monotonic()
    own = tools = 0
    with log.open("w") as file:
        process = subprocess.Popen(argv, env=env, cwd=cwd, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            mine = others = 0
            for pid in descendants(process.pid):
                is_ours, size = memory_of(pid)
                mine, others = (mine + size, others) if is_ours else (mine, others + size)
            own, tools = max(own, mine), max(tools, others)
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{argv} ended with {process.returncode}\n{log.read_text()[-3000:]}")
    return Cost(time.monotonic() - began, own, tools)


def descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from descendants(int(child))


def memory_of(pid: int) -> tuple[bool, int]:
    """Whether a process runs our Python, and its proportional set size in bytes (proc_pid_smaps(5))."""
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:8]
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return False, 0
    size = next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return b"dibble" in program, size


def tree_tar(path: Path, size: int) -> None:
    """A tar of files of FILE_BYTES, 500 a directory, half of each random; made once."""
    if path.exists():
        return
    chance = random.Random(size)
    half = b"The same words again and again. " * (FILE_BYTES // 64)
    with tarfile.open(path.with_suffix(".part"), "w") as archive:
        for number in range(size // FILE_BYTES):
            info = tarfile.TarInfo(f"opt/data/{number // 500:04d}/file-{number:06d}")
            data = chance.randbytes(FILE_BYTES - len(half)) + half
            info.size, info.mtime, info.mode = len(data), 1_700_000_000, 0o644
            archive.addfile(info, io.BytesIO(data))
    path.with_suffix(".part").rename(path)


def repository(place: Path, count: int) -> None:
    """A flat repository of `count` packages and one that depends on them all; made once."""
    if (place / "Packages").exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    chance = random.Random(count)
    stanzas = []
    names = [f"scale-{number:04d}" for number in range(count)]
    for name in [*names, "scale-all"]:
        depends = f"Depends: {', '.join(names)}\n" if name == "scale-all" else ""
        control = (
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n"
            f"Priority: optional\nSection: misc\n{depends}Description: synthetic\n"
        )
        folders = ["./", "./usr/", "./usr/share/", f"./usr/share/{name}/"]
        files = [File(folder, kind="5", mode=0o755, owner=(0, 0)) for folder in folders]
        if name != "scale-all":
            files += [
                File(f"{folders[-1]}{number:02d}", chance.randbytes(PACKAGE_FILE_BYTES), owner=(0, 0))
                for number in range(PER_PACKAGE)
            ]
        own = [File("./", kind="5", mode=0o755, owner=(0, 0)), File("./control", control.encode(), owner=(0, 0))]
        members = [("debian-binary", b"2.0\n"), ("control.tar", tar_of(own)), ("data.tar", tar_of(files))]
        deb = ar_of(members)
        (place / f"{name}_1_all.deb").write_bytes(deb)
        digest = hashlib.sha256(deb).hexdigest()
        stanzas.append(f"{control}Filename: ./{name}_1_all.deb\nSize: {len(deb)}\nSHA256: {digest}\n")
    text = "\n".join(stanzas)
    digest = hashlib.sha256(text.encode()).hexdigest()
    head = "Origin: scale\nSuite: scale\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
    (place / "Release").write_text(f"{head}SHA256:\n {digest} {len(text)} Packages\n")
    (place / "Packages").write_text(text)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def element(elements: Path, name: str, files: dict[str, str]) -> None:
    for file, text in files.items():
        path = elements / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)


class Scale:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.elements = work / "elements"
        self.cache = work / "cache"
        self.env = {**os.environ, "ELEMENTS_PATH": str(self.elements), "DIB_IMAGE_CACHE": str(self.cache)}

    def build(self, *words: str) -> Cost:
        for path in self.work.glob("scale.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return measured([str(ROOT / "dibble"), "build", "-o", "scale", *words], self.env, self.work)

    def forget_layers(self) -> None:
        for part in ("layers", "keys", "outputs", "facts", "builds"):
            shutil.rmtree(self.cache / part, ignore_errors=True)

    def trees(self, sizes: list[float]) -> None:
        print(
            "\n| tree | files | build to qcow2, s | s per GB | again, s | own memory, MB | tools, MB |\n|" + "---|" * 7
        )
        for size in sizes:
            archive = self.work / f"tree-{size}.tar"
            tree_tar(archive, int(size * 1e9))
            element(
                self.elements,
                f"tree-{size}",
                {"element-provides": "operating-system\n", "root.d/10-tree": UNPACK % archive},
            )
            self.forget_layers()
            cost = self.build("-n", f"tree-{size}")
            again = self.build("-n", f"tree-{size}")
            files = int(size * 1e9) // FILE_BYTES
            row = (f"{size} GB", f"{files:,}", f"{cost.seconds:.1f}", f"{cost.seconds / size:.1f}")
            own = max(cost.own, again.own)
            print(f"| {' | '.join(row)} | {again.seconds:.1f} | {own / 1e6:.0f} | {cost.tools / 1e6:.0f} |", flush=True)

    def packages(self, counts: list[int]) -> None:
        print("\n| packages | build to tar, s | s per 100 above the base | own memory, MB |\n|" + "---|" * 4)
        base = None
        for count in [0, *counts]:
            place = self.work / f"repository-{count}"
            repository(place, count)
            handler = functools.partial(_Quiet, directory=str(place))
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            source = f"deb [trusted=yes] http://127.0.0.1:{server.server_port} ./"
            script = f"#!/bin/bash\nset -eu\necho '{source}' > /etc/apt/sources.list.d/scale.list\n"
            element(self.elements, "scale-source", {"pre-install.d/02-scale-source": script})
            self.forget_layers()
            cost = self.build("-t", "tar", "debian-minimal", "scale-source", "-p", "scale-all")
            server.shutdown()
            base = cost.seconds if base is None else base
            per = f"{100 * (cost.seconds - base) / count:.2f}" if count else ""
            print(f"| {count} | {cost.seconds:.1f} | {per} | {cost.own / 1e6:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", default="0.2,1,4")
    parser.add_argument("--packages", default="100,500,1000,2000")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-scale"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    scale = Scale(options.work)
    if sizes := [float(word) for word in options.sizes.split(",") if word]:
        scale.trees(sizes)
    if counts := [int(word) for word in options.packages.split(",") if word]:
        scale.packages(counts)


if __name__ == "__main__":
    main()
