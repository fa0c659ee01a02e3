#!/usr/bin/env python3
"""Times a Debian of another architecture: dibble, mmdebstrap with the same emulator, and dibble for this machine.

    benchmarks/foreign.py [--arch arm64] [--suite bookworm] [--rounds 1] [--work /var/tmp/dibble-benchmark]

The smallest Debian (essential packages and apt) into a tar. Needs root, mmdebstrap, and a mirror that has all of it.
Both emulate with the qemu-user of dibble's tools, registered in a user namespace; mmdebstrap runs in there. Downloads
are in a cache; of dibble nothing else is, but the tools tree. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.compare import DOWNLOADS, Benchmark  # noqa: E402
from benchmarks.proxy import caching_proxy  # noqa: E402

from dibble.events import Events  # noqa: E402
from dibble.sandbox import binfmt  # noqa: E402
from dibble.sandbox.enter import run_in_namespace  # noqa: E402
from dibble.sandbox.tools import ToolsTree, host_arch  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = """#!/bin/bash
set -eu
dib-engine bootstrap apt --suite {suite} --arch "$ARCH" --mirror {mirror} --variant minbase
"""


class Foreign(Benchmark):
    """The contenders, for one architecture."""

    def __init__(self, work: Path, suite: str, proxy: str, arch: str) -> None:
        super().__init__(work, suite, proxy)
        self.arch = arch
        element = self.elements / "smallest"
        script = element / "root.d" / "08-smallest"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPT.format(suite=suite, mirror=self.mirror))
        script.chmod(0o755)
        (element / "element-provides").write_text("operating-system\n")

    def build(self, arch: str) -> None:
        name = f"smallest-{arch}"
        (self.output / f"{name}.tar").unlink(missing_ok=True)
        words = ("build", "-n", "-a", arch, "-t", "tar", "-o", name, "smallest")
        self.call(ROOT / "dibble", *words, DIB_IMAGE_CACHE=str(self.cache), ELEMENTS_PATH=str(self.elements))

    def mmdebstrap_emulated(self) -> None:
        target = self.output / "mmdebstrap.tar"
        target.unlink(missing_ok=True)
        scratch = self.work / "binfmt"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()

        def main() -> None:
            tools = ToolsTree(self.cache, Events()).ensure("qemu-user")[0]
            emulator = tools / "usr/bin" / f"qemu-{binfmt.known(self.arch).emulator}"
            binfmt.enable(self.arch, emulator, scratch / "own")
            words = ("--mode=root", "--variant=minbase", f"--architectures={self.arch}", "--skip=check/qemu")
            self.call("mmdebstrap", *words, self.suite, target, f"deb {self.mirror} {self.suite} main")

        run_in_namespace(main)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", default="arm64")
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-benchmark"))
    options = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("benchmarks/foreign.py: needs root, as mmdebstrap does in a namespace")
    (options.work / "output").mkdir(parents=True, exist_ok=True)
    with caching_proxy(options.work / "proxy") as proxy:
        bench = Foreign(options.work, options.suite, proxy, options.arch)
        native = host_arch()
        contenders: dict[str, Callable[[], None]] = {
            f"dibble, {options.arch}": lambda: bench.build(options.arch),
            f"dibble, {native}": lambda: bench.build(native),
            f"mmdebstrap, {options.arch}, emulated": bench.mmdebstrap_emulated,
        }
        for run in contenders.values():  # downloads
            run()
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, run in contenders.items():
                bench.forget(*DOWNLOADS, "tools")
                os.sync()
                began = time.monotonic()
                run()
                seconds[name].append(time.monotonic() - began)
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    ours, *others = (statistics.median(values) for values in seconds.values())
    print("\n| what | median s | dibble's share |\n|---|---|---|")
    print(f"| dibble, {options.arch} | {ours:.1f} | |")
    for name, median in zip(list(contenders)[1:], others, strict=True):
        print(f"| {name} | {median:.1f} | {ours / median:.2f}x |")
    shutil.rmtree(options.work / "trash", ignore_errors=True)


if __name__ == "__main__":
    main()
