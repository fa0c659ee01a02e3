"""Times what dibble does around the scripts of elements: resolving and merging them, and carrying out each script.

    benchmarks/elements.py [--rounds 9] [--scripts 40] [--work /var/tmp/dibble-benchmark]

Resolving, merging and looking into 40 elements shall take at most 0.2 s; what a script costs besides its own work
(entering the sandbox, mounting the overlay, freezing the layer) at most 30 ms. The scripts do nothing, so that the time
of their steps is that cost, with the start of two shells in it. Needs the tools tree, which is fetched when it is
missing.
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
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from dibble.elements import hooks  # noqa: E402
from dibble.elements.assemble import element_set  # noqa: E402
from dibble.elements.check import check  # noqa: E402
from dibble.plan import manifest  # noqa: E402

ELEMENTS = 40
SYSTEM = """#!/bin/bash
set -eu
# {mark}
mkdir -p "$TARGET_ROOT"/{{etc,proc,sys,dev,tmp,root,var/log,usr/bin,usr/lib,usr/lib64}}
for name in bin lib lib64; do ln -s usr/$name "$TARGET_ROOT/$name"; done
for program in bash env; do
    cp /usr/bin/$program "$TARGET_ROOT/usr/bin/"
    for library in $(ldd /usr/bin/$program | grep -o '/[^ ]*'); do
        mkdir -p "$TARGET_ROOT${{library%/*}}"
        cp -L "$library" "$TARGET_ROOT$library"
    done
done
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755 if text.startswith("#!") else 0o644)


def many_elements(place: Path) -> list[str]:
    """Elements like real ones: some scripts, a package list, a map, and what the one before brings."""
    names = [f"element-{number:02d}" for number in range(ELEMENTS)]
    for number, name in enumerate(names):
        element = place / name
        for phase in ("extra-data.d", "pre-install.d", "install.d", "post-install.d", "finalise.d"):
            write(element / phase / f"{number:02d}-{name}", f"#!/bin/bash\nset -eu\necho {name}\n" + "# text\n" * 20)
        write(element / "environment.d" / f"{number:02d}-{name}", f"export OF_{number}=1\n")
        write(element / "package-installs.yaml", f"package-{number}:\ntool-{number}:\n  phase: pre-install.d\n")
        write(element / "pkg-map", json.dumps({"default": {f"package-{number}": "one two"}}))
        write(element / "README.rst", "=\nx\n=\n")
        write(element / "static/etc" / name, "data\n")
        if number:
            write(element / "element-deps", f"{names[number - 1]}\n")
    write(place / names[0] / "element-provides", "operating-system\n")
    return names


def resolving(place: Path, rounds: int) -> tuple[float, float]:
    """Median seconds of resolving and merging, without and with the look into all files that changed elements get."""
    names = many_elements(place)
    bare, whole = [], []
    for _ in range(rounds):
        hooks._content.cache_clear()
        manifest._digest.cache_clear()
        began = time.perf_counter()
        found = element_set(names[-1:], [place], skip_base=True)
        manifest.manifest_of(found.hooks, {})
        bare.append(time.perf_counter() - began)
        check(found.elements, found.hooks)
        whole.append(time.perf_counter() - began)
        assert len(found.elements) == ELEMENTS
    return statistics.median(bare), statistics.median(whole)


def steps(place: Path, cache: Path, scripts: int) -> dict[str, list[float]]:
    """Seconds of the steps of scripts that do nothing, by phase."""
    mark = uuid.uuid4()
    write(place / "system/element-provides", "operating-system\n")
    write(place / "system/root.d/10-system", SYSTEM.format(mark=mark))
    for phase in ("extra-data.d", "install.d"):
        for number in range(scripts):
            # Each leaves something, as scripts do: a layer of its own.
            target = "$TMP_MOUNT_PATH" if phase == "extra-data.d" else ""
            text = f"#!/bin/bash\n# {mark}\necho > {target}/etc/{phase}-{number}\n"
            write(place / "system" / phase / f"{number:02d}-x", text)
    argv = [str(ROOT / "dibble"), "build", "--json", "-n", "-t", "tar", "-o", str(place / "out"), "system"]
    env = {**os.environ, "ELEMENTS_PATH": str(place), "DIB_IMAGE_CACHE": str(cache)}
    done = subprocess.run(argv, env=env, cwd=place, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    found: dict[str, list[float]] = {"extra-data.d": [], "install.d": []}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        phase = event.get("step", "").partition("/")[0]
        if event["event"] == "StepFinished" and phase in found:
            found[phase].append(event["seconds"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what dibble does around the scripts of elements.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scripts", type=int, default=40)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-benchmark"))
    options = parser.parse_args()
    place = options.work / "elements-benchmark"
    shutil.rmtree(place, ignore_errors=True)
    bare, whole = resolving(place / "many", options.rounds)
    print(f"resolving and merging {ELEMENTS} elements: {bare * 1000:.0f} ms (at most 200)")
    print(f"the same with a look into each of their files: {whole * 1000:.0f} ms")
    for phase, seconds in steps(place / "few", options.work / "dibble-cache", options.scripts).items():
        where = "inside" if phase == "install.d" else "outside"
        ms = sorted(second * 1000 for second in seconds)
        median = statistics.median(ms)
        print(f"a script {where} the target: median {median:.1f} ms, {ms[0]:.1f} to {ms[-1]:.1f} (at most 30)")
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
