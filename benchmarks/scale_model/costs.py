"""What cells of a simulated cluster cost: drawn, with a fixed seed, from what was measured (measured.json)."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dibble.fleet.cells import HOSTGEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dibble.fleet.cells import Work

MB = 1_000_000
MEASURED = Path(__file__).parent / "measured.json"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is assumed of a cluster. Rates in bytes a second, times in seconds."""

    workers: int
    foreign_share: float = 0.3
    """Of the workers, those of the second architecture; a cluster of one has none."""
    slots: int = 1
    """Cells at a time on one worker, which share its store."""
    link: float = 125 * MB
    """Of each worker: 1 Gbit/s."""
    store: float = 1250 * MB
    """Of the remote store, for all together: 10 Gbit/s."""
    mean_life: float = 0.0
    """Mean time until a worker dies; 0: never."""
    replaced_after: float = 60.0
    cross: Literal["never", "images", "always"] = "never"
    """When a worker builds for the other architecture though there are workers of that: never, as the pool of a Dask
    cluster; when all layers are there, so that images are all that is made; or always."""

    def architecture(self, number: int) -> str:
        second = int(self.workers * self.foreign_share)
        return "arm64" if number >= self.workers - second else "amd64"


@dataclass(frozen=True, slots=True)
class Layer:
    """Layers that cells share: what making them takes at home, and how big they are when compressed."""

    key: str
    seconds: float
    size: float
    packages: str = ""
    """Of the downloads that making them wants, whose size is that of the layers; empty: none."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What building a cell takes besides its shared layers, and what it leaves. Sizes in bytes."""

    layers: tuple[Layer, ...]
    begin: float
    format: float
    output: float
    arch: str
    foreign: float
    """What making layers takes on another architecture, as a factor."""

    @property
    def own(self) -> float:
        return self.begin + self.format


class Costs:
    """Of cells, by their values. The same seed gives the same costs, whatever the order in which they are asked for."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._measured: Mapping[str, Any] = json.loads(MEASURED.read_text())
        self.begin: float = self._measured["begin_s"]["value"]
        self.tools: float = self._measured["tools_s"]["value"]
        self._of: dict[str, Cost] = {}

    def of(self, work: Work) -> Cost:
        name = work.cell.name
        if name not in self._of:
            self._of[name] = self._cost(work)
        return self._of[name]

    def _cost(self, work: Work) -> Cost:
        axes = work.cell.axes
        arch = axes.get("architecture", "amd64")
        system = f"{axes.get('distribution', axes['host'])} {arch}"
        base = Layer(
            work.base, self._time("base_s", f"{system} {axes['host']}", system), self._size("base_mb", system), system
        )
        layers: tuple[Layer, ...] = (base,)
        if work.kind != HOSTGEN:
            role = axes.get("ROLE", "")
            layers += (Layer(work.tree, self._time("role_s", work.tree, role), self._size("role_mb", role)),)
        kind = axes.get("format", "tar")
        seconds = self._measured["format_s"]["values"][kind] * self._noise(work.cell.name)
        output = sum(layer.size for layer in layers)
        foreign = random.Random(f"{self._seed} foreign {system}").uniform(*self._measured["foreign"]["values"])
        return Cost(layers, self.begin, seconds, output, arch, foreign)

    def _time(self, what: str, of: str, kind: str) -> float:
        """One of the measured times for the kind, with noise for the single thing of that kind."""
        return self._drawn(what, kind) * self._noise(of)

    def _size(self, what: str, kind: str) -> float:
        return self._drawn(what, kind) * MB

    @functools.cache  # noqa: B019 - as long as the costs
    def _drawn(self, what: str, kind: str) -> float:
        return float(random.Random(f"{self._seed} {what} {kind}").choice(self._measured[what]["values"]))

    @functools.cache  # noqa: B019 - as long as the costs
    def _noise(self, of: str) -> float:
        return random.Random(f"{self._seed} noise {of}").lognormvariate(0.0, self._measured["spread"]["value"])


@dataclass(frozen=True, slots=True)
class Bound:
    """What no schedule can beat. All in seconds: total work of one slot, the longest chain, the store's transfers."""

    work: float
    chain: float
    store: float
    slots: int

    @property
    def makespan(self) -> float:
        return max(self.work / self.slots, self.chain, self.store)


def bound_of(works: Sequence[Work], costs: Costs, cluster: Cluster) -> Bound:
    """Each layer made once, on its own architecture if a worker has that, and brought to the store once; each cell's
    own work; nothing ever waits, and nothing is brought to a second worker."""
    here = {cluster.architecture(number) for number in range(cluster.workers)}
    rate = min(cluster.link, cluster.store)
    layers: dict[str, float] = {}
    sizes: dict[str, float] = {}
    own = 0.0
    longest: dict[str, float] = {}

    def made(cost: Cost) -> Iterable[tuple[Layer, float]]:
        factor = 1.0 if cost.arch in here else cost.foreign
        return ((layer, layer.seconds * factor) for layer in cost.layers)

    by_name = {work.cell.name: work for work in works}

    def chain(name: str) -> float:
        """Seconds from the beginning to the end of a cell: at least what it needs, then its own work and image.

        Layers count where it needs no cell that makes them.
        """
        if name not in longest:
            work = by_name[name]
            cost = costs.of(work)
            there = {layer.key for need in work.cell.needs for layer in costs.of(by_name[need]).layers}
            mine = sum(seconds for layer, seconds in made(cost) if layer.key not in there)
            before = max((chain(need) for need in work.cell.needs), default=0.0)
            longest[name] = before + mine + cost.own + cost.output / rate
        return longest[name]

    for work in works:
        cost = costs.of(work)
        own += cost.own + cost.output / rate
        sizes[work.cell.name] = cost.output
        for layer, seconds in made(cost):
            layers[layer.key] = seconds + layer.size / rate
            sizes[layer.key] = layer.size
    total = own + sum(layers.values())
    most = max(chain(name) for name in by_name)
    return Bound(total, most, sum(sizes.values()) / cluster.store, cluster.workers * cluster.slots)
