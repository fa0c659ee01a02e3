"""How the scheduler of matrices does on clusters that we do not have: 10^4 cells, 1 to 1000 workers, in virtual time.

    benchmarks/fleet_scale.py [--workers 1,10,100,1000] [--events 100] [--figures docs/figures] [--seed 1]

The scheduler is the real one: reader, cells, Runner, order, journal. The pool is a discrete-event simulation
(scale_model/simulated.py) whose times and sizes are drawn from measured ones (scale_model/measured.json). Prints tables
in Markdown; docs/scale.md says what they mean. The overhead is this machine's real time, all else is virtual and the
same everywhere for a seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.scale_model.costs import Cluster  # noqa: E402
from benchmarks.scale_model.figures import bars, lines  # noqa: E402
from benchmarks.scale_model.orders import FirstIn, Shuffled  # noqa: E402
from benchmarks.scale_model.simulate import simulated  # noqa: E402

from dibble.fleet.cells import cells_of  # noqa: E402
from dibble.fleet.choose import SharedLayers  # noqa: E402
from dibble.fleet.read_matrix import read_matrix  # noqa: E402
from dibble.recipe.load import this_host  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.scale_model.simulate import Outcomes

    from dibble.fleet.cells import Work
    from dibble.fleet.choose import Order

MATRIX = ROOT / "benchmarks/scale_model/cluster.yaml"
ORDERS: dict[str, Callable[[], Order]] = {
    "dibble's order": SharedLayers,
    "as in the file": FirstIn,
    "at random": Shuffled,
}
HOUR = 3600.0
_EACH = "| workers | order | makespan, h | bound, h | ratio | in use | made again | from and to the store, TB |"
_OTHER = "| 100 workers | makespan, h | ratio | in use | made again | store, TB | deaths | cells tried again | failed |"


def read(path: Path) -> list[Work]:
    """The cells of a matrix, as `dibble matrix` makes them; whatever this machine can run, the cluster can."""
    began = time.perf_counter()
    works = cells_of(read_matrix(path, shown=path.name), {}, this_host())
    seconds = time.perf_counter() - began
    print(f"{len(works)} cells read in {seconds:.1f} s: {seconds / len(works) * 1000:.2f} ms a cell\n")
    return [replace(work, unsupported="") for work in works]


def run(
    works: Sequence[Work], cluster: Cluster, order: Order, options: argparse.Namespace, events: int = 0
) -> Outcomes:
    with tempfile.TemporaryDirectory(prefix="dibble-scale-") as folder:
        found, _ = simulated(works, cluster, Path(folder), order=order, events=events, seed=options.seed)
    return found


def rule(head: str) -> str:
    return f"{head}\n|{'---|' * (head.count('|') - 1)}"


def parts_of(found: Outcomes) -> dict[str, float]:
    whole = found.makespan * found.bound.slots
    names = (
        "layers",
        "layers, cross-built",
        "made again",
        "images",
        "transfers",
        "waiting for layers",
        "lost with workers",
    )
    shares = {name: found.spent.get(name, 0.0) / whole for name in names}
    shares["begin, downloads"] = (found.spent.get("begin", 0.0) + found.spent.get("downloads", 0.0)) / whole
    return shares


def compare(works: Sequence[Work], options: argparse.Namespace) -> None:
    """Every order on every number of workers."""
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in ORDERS}
    spent: dict[str, dict[str, float]] = {}
    print(rule(_EACH))
    for workers in options.workers:
        for name, order in ORDERS.items():
            found = run(works, Cluster(workers), order(), options)
            ratios[name].append((workers, found.ratio))
            spent[f"{workers}, {name}"] = parts_of(found)
            print(
                f"| {workers} | {name} | {found.makespan / HOUR:.2f} | {found.bound.makespan / HOUR:.2f} "
                f"| {found.ratio:.2f} | {found.utilisation:.0%} | {found.made_again} | {found.moved / 1e12:.2f} |",
                flush=True,
            )
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        title = "Makespan of 10,000 cells beside the lower bound"
        (options.figures / "scale-makespan.svg").write_text(lines(title, "workers", "1 is the bound", ratios))
        (options.figures / "scale-time.svg").write_text(bars("What the workers' time goes to", spent))


def vary(works: Sequence[Work], options: argparse.Namespace) -> None:
    """100 workers, one assumption changed at a time."""
    plain = Cluster(100)
    cases = {
        "as above": plain,
        "half of them arm64": replace(plain, foreign_share=0.5),
        "images of any architecture anywhere": replace(plain, cross="images"),
        "everything anywhere": replace(plain, cross="always"),
        "store with 100 Gbit/s": replace(plain, store=plain.store * 10),
        "the same, images anywhere": replace(plain, store=plain.store * 10, cross="images"),
        "store with 1 Gbit/s": replace(plain, store=plain.store / 10),
        "25 workers of 4 slots": replace(plain, workers=25, slots=4),
        "a worker lives 24 h": replace(plain, mean_life=24 * HOUR),
        "a worker lives 4 h": replace(plain, mean_life=4 * HOUR),
        "a worker lives 1 h": replace(plain, mean_life=HOUR),
        "a worker lives 10 min": replace(plain, mean_life=HOUR / 6),
    }
    spent: dict[str, dict[str, float]] = {}
    print("\n" + rule(_OTHER))
    for name, cluster in cases.items():
        found = run(works, cluster, SharedLayers(), options)
        spent[name] = parts_of(found)
        print(
            f"| {name} | {found.makespan / HOUR:.2f} | {found.ratio:.2f} | {found.utilisation:.0%} "
            f"| {found.made_again} | {found.moved / 1e12:.2f} | {found.deaths} | {found.retried} | {found.failed} |",
            flush=True,
        )
    if options.figures:
        title = "100 workers: what their time goes to"
        (options.figures / "scale-assumptions.svg").write_text(bars(title, spent))


def overhead(works: Sequence[Work], options: argparse.Namespace) -> None:
    """Real time and memory of the scheduler, with as many events as a build sends."""
    print("\n" + rule("| workers | events a cell | overhead, ms a cell | processor, ms a cell, simulation included |"))
    for workers in options.workers:
        for events in (0, options.events):
            found = run(works, Cluster(workers), SharedLayers(), options, events)
            each = found.processor / found.cells * 1000
            print(f"| {workers} | {events} | {found.overhead * 1000:.2f} | {each:.2f} |", flush=True)
    tracemalloc.start()
    run(works, Cluster(100), SharedLayers(), options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\nmemory of a run of {len(works)} cells besides the cells: {peak / 1e6:.0f} MB (with the simulation)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", type=Path, default=MATRIX)
    parser.add_argument(
        "--workers", type=lambda text: [int(one) for one in text.split(",")], default=[1, 10, 100, 1000]
    )
    parser.add_argument("--events", type=int, default=100, help="that a build sends")
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("compare", "vary", "overhead"))
    options = parser.parse_args()
    works = read(options.matrix)
    for name, part in (("compare", compare), ("vary", vary), ("overhead", overhead)):
        if options.only in (None, name):
            part(works, options)


if __name__ == "__main__":
    main()
