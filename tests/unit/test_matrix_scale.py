"""The simulated cluster of benchmarks/fleet_scale.py: what it says can be trusted as far as its model can."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from benchmarks.scale_model.costs import Cluster, Costs, bound_of
from benchmarks.scale_model.figures import bars, lines
from benchmarks.scale_model.orders import FirstIn, Shuffled
from benchmarks.scale_model.simulate import simulated

from dibble.fleet.cells import Work
from dibble.fleet.choose import SharedLayers
from dibble.fleet.model import Cell, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.fleet.choose import Order

pytestmark = pytest.mark.unit


def cell(distribution: str, arch: str, role: str, kind: str) -> Work:
    name = f"local/{distribution}-{arch}-{role}-{kind}"
    axes = {"host": "local", "distribution": distribution, "architecture": arch, "ROLE": role, "format": kind}
    needs = (f"local/{distribution}-{arch}-{role}-qcow2",) if kind == "vmdk" else ()
    return Work(
        Cell(name, "local", name, "k", axes, needs),
        recipe={"arch": arch},
        base=f"{distribution} {arch}",
        tree=f"{distribution} {arch} {role}",
    )


CELLS = [
    cell(*values)
    for values in itertools.product(
        ("debian", "fedora", "ubuntu"), ("amd64", "arm64"), ("r1", "r2", "r3", "r4"), ("qcow2", "vmdk", "tar", "erofs")
    )
]


@pytest.mark.parametrize("mean_life", [0.0, 200.0])
def test_the_same_seed_gives_the_same_run(tmp_path: Path, mean_life: float) -> None:
    cluster = Cluster(5, mean_life=mean_life)
    first, run = simulated(CELLS, cluster, tmp_path / "a", events=3)
    second, again = simulated(CELLS, cluster, tmp_path / "b", events=3)
    assert run == again
    assert replace(first, overhead=0.0, processor=0.0) == replace(second, overhead=0.0, processor=0.0)
    other, _ = simulated(CELLS, cluster, tmp_path / "c", seed=2)
    assert other.makespan != first.makespan


@pytest.mark.parametrize("order", [SharedLayers, FirstIn, Shuffled])
@pytest.mark.parametrize(
    "cluster", [Cluster(1), Cluster(4), Cluster(4, cross="images"), Cluster(2, slots=3), Cluster(40)]
)
def test_no_run_beats_the_lower_bound(tmp_path: Path, order: Callable[[], Order], cluster: Cluster) -> None:
    found, run = simulated(CELLS, cluster, tmp_path, order=order())
    assert found.ratio >= 1.0
    assert 0.0 < found.utilisation <= 1.0
    assert {result.outcome for result in run.results} == {Outcome.SUCCESS}


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_a_run_is_within_twice_the_bound_where_any_worker_takes_any_cell(tmp_path: Path, workers: int) -> None:
    # who never leaves a slot idle is below twice the best (Graham 1966); what is made again and brought comes on top
    found, _ = simulated(CELLS, Cluster(workers, foreign_share=0.0, store=1e12), tmp_path)
    assert found.ratio <= 2.0


def test_one_worker_takes_the_time_of_the_work_and_of_getting_ready(tmp_path: Path) -> None:
    costs, cluster = Costs(), Cluster(1)
    found, _ = simulated(CELLS, cluster, tmp_path)
    ready = costs.tools + found.from_mirrors / cluster.link
    assert found.makespan == pytest.approx(bound_of(CELLS, costs, cluster).work + ready)


def test_dibbles_order_makes_fewer_layers_again_than_that_of_the_file(tmp_path: Path) -> None:
    cluster = Cluster(6, foreign_share=0.5)
    ours, _ = simulated(CELLS, cluster, tmp_path / "a")
    plain, _ = simulated(CELLS, cluster, tmp_path / "b", order=FirstIn())
    assert ours.made_again < plain.made_again
    assert ours.makespan < plain.makespan


def test_a_worker_that_dies_costs_only_the_cell_that_it_had(tmp_path: Path) -> None:
    found, run = simulated(CELLS, Cluster(4, mean_life=200.0), tmp_path)
    assert found.deaths
    assert 0 < found.retried <= found.deaths
    assert found.failed == 0
    assert max(len(result.attempts) for result in run.results) > 1


def test_a_slow_store_is_a_bound_of_its_own(tmp_path: Path) -> None:
    quick, _ = simulated(CELLS, Cluster(8), tmp_path / "a")
    slow, _ = simulated(CELLS, Cluster(8, store=20e6), tmp_path / "b")
    assert slow.bound.makespan == slow.bound.store
    assert slow.makespan > slow.bound.store > quick.makespan


def test_figures_are_xml_with_all_names() -> None:
    from xml.etree import ElementTree

    drawn = lines("A & B", "workers", "ratio", {"x": [(1, 1.0), (10, 2.0)], "y": [(1, 1.0), (10, 1.5)]})
    shares = bars("shares", {"one": {"a": 0.5, "b": 0.25}, "two": {"b": 1.0}})
    for text, names in ((drawn, ("x", "y", "A & B (ratio)")), (shares, ("one", "two", "a", "b"))):
        said = [element.text for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
        assert set(names) <= set(said)
