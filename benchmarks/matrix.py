"""Nine cells that share a base against nine builds one by one, and what scheduling costs a cell.

    benchmarks/matrix.py [--work /var/tmp/dibble-matrix] [--cells 500] [--skip-builds]

Both sides begin with the same downloads and tools and with empty layers; the nine builds are those of a user without a
matrix who keeps nothing between them but downloads. Three sets of packages on debian-minimal, three formats each.
Scheduling is measured with cells whose jobs do nothing: all that is left is reading the file, making cells, choosing,
the journal and the events.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from dibble.events import Events  # noqa: E402
from dibble.fleet.cells import cells_of  # noqa: E402
from dibble.fleet.local import LocalPool  # noqa: E402
from dibble.fleet.model import Attempt, Outcome  # noqa: E402
from dibble.fleet.pool import JobResult  # noqa: E402
from dibble.fleet.read_matrix import read_matrix  # noqa: E402
from dibble.fleet.run import Runner, Settings  # noqa: E402
from dibble.fleet.state import journal, new_state  # noqa: E402
from dibble.recipe.load import this_host  # noqa: E402

if TYPE_CHECKING:
    from dibble.fleet.pool import Job

NINE = """\
settings: {elements: [debian-minimal]}
axes:
  variant:
    - {name: plain}
    - {name: vim, packages: [vim-tiny]}
    - {name: web, packages: [nginx-light]}
  format: [tar, qcow2, squashfs]
"""
KEPT = ("blobs", "repositories", "tools", "store.json")


def fresh(work: Path, name: str) -> Path:
    """A store with downloads and tools, and no layers."""
    store = work / name
    subprocess.run(["rm", "-rf", store], check=True)
    store.mkdir()
    for entry in KEPT:
        if (work / "warm" / entry).exists():
            subprocess.run(["cp", "-al", work / "warm" / entry, store / entry], check=True)
    return store


def dibble(work: Path, store: Path, *words: str | Path) -> float:
    """Seconds of a run."""
    began = time.monotonic()
    done = subprocess.run(
        [ROOT / "dibble", *words],
        cwd=work,
        env={**os.environ, "DIB_IMAGE_CACHE": str(store)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{words} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.monotonic() - began


def builds(work: Path) -> None:
    (work / "nine.yaml").write_text(NINE)
    shutil.rmtree(work / "nine-matrix", ignore_errors=True)
    dibble(work, work / "warm", "matrix", "nine.yaml")  # downloads everything
    together = dibble(work, fresh(work, "store"), "matrix", "nine.yaml", "--fresh")
    alone = 0.0
    for recipe in sorted((work / "nine-matrix/cells").rglob("cell.yaml")):
        seconds = dibble(recipe.parent, fresh(work, "store"), "build", recipe.name)
        print(f"  {recipe.parent.name}: {seconds:.1f} s")
        alone += seconds
    print(f"nine cells {together:.1f} s, nine builds {alone:.1f} s: {together / alone:.2f}x")


def nothing(_job: Job, _listen: Any, _stop: Any) -> JobResult:
    return JobResult(Attempt("here", time.time(), 0.0, Outcome.SUCCESS))


def scheduling(work: Path, count: int) -> None:
    folder = work / "nothing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    values = json.dumps([str(number) for number in range(count // 2)])
    text = f"max-cells: {count}\naxes: {{distribution: [debian-minimal, ubuntu-minimal], A: {values}}}\n"
    (folder / "m.yaml").write_text(text)
    began = time.monotonic()
    works = cells_of(read_matrix(folder / "m.yaml", shown="m.yaml"), os.environ, this_host())
    read = time.monotonic() - began
    pool = LocalPool(2, run=nothing)
    settings = Settings("m", folder, folder / "store", {})
    began = time.monotonic()
    with journal(folder) as book:
        state = new_state()
        book.begin(state, resumed=False)
        Runner(works, pool, settings, state=state, journal=book, events=Events([])).go()
    ran = time.monotonic() - began
    each = (read + ran) / count * 1000
    print(f"{count} cells that do nothing: read {read:.2f} s, run {ran:.2f} s, {each:.2f} ms a cell")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dibble-matrix"))
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--skip-builds", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    scheduling(options.work, options.cells)
    if not options.skip_builds:
        builds(options.work)


if __name__ == "__main__":
    main()
