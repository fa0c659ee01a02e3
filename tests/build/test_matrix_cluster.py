"""A matrix on a Dask cluster: workers behind their own networks that die, a scheduler that goes and comes back."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.dask_cluster import DaskCluster, dask_cluster
from tests.build.small_elements import SmallElements
from tests.people import REPOSITORY

from dibble import __version__
from dibble.errors import HostError
from dibble.fleet import cluster as cluster_module
from dibble.fleet.dask_pool import DaskPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

DIBBLE = (sys.executable, "-P", "-s", "-m", "dibble")
WAIT = 'until [ -s "$DIB_GATES/$GATE" ]; do sleep 0.1; done'
"""The home directory is shown through an overlay, which sees what is written to a file, but no new one."""
SQUARE = """\
settings: {elements-path: [elements], skip-base: true, elements: [small]}
axes:
  variant: [{name: one, elements: one}, {name: two, elements: [one, two]}]
  format: [tar, oci]
"""
GATED = """\
settings: {elements-path: [elements], skip-base: true, elements: [small, one], outputs: tar}
axes:
  variant:
    - {name: free}
    - {name: held, elements: gate, environment: {GATE: held}}
    - {name: late, elements: gate, environment: {GATE: late}}
"""


@pytest.fixture
def small(ourselves: Person) -> SmallElements:
    found = SmallElements(ourselves, ourselves.directory("matrix-cluster"))
    for name in ("one", "two", "gate"):
        found.write(f"{name}/README.rst", f"{'=' * len(name)}\n{name}\n{'=' * len(name)}\nFor tests.\n")
    found.script("one/install.d/10-one", "echo one > /opt/one; echo said by one")
    found.script("two/install.d/10-two", "cat /opt/one > /opt/two")
    found.script("gate/extra-data.d/90-gate", WAIT)
    return found


@pytest.fixture
def cluster(small: SmallElements) -> Iterator[DaskCluster]:
    with dask_cluster(small.person, small.place) as found:
        yield found


class Running:
    """`dibble matrix --scheduler` in the background, and the events that it prints."""

    def __init__(self, small: SmallElements, cluster: DaskCluster, text: str, *words: str) -> None:
        self.small, self.cluster = small, cluster
        path = small.write("../m.yaml", text)
        self.gates = small.place / "gates"
        self.gates.mkdir(exist_ok=True)
        for name in ("held", "late"):
            (self.gates / name).touch()
        remote = words if "--remote" in words else ("--remote", "remote", *words)
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [*DIBBLE, "matrix", path.name, "--json", "--scheduler", cluster.address, *remote],
            cwd=small.place,
            env=small.environment(
                DIB_GATES=str(self.gates),
                PYTHONPATH=str(REPOSITORY / "src"),
                DIBBLE_HISTORY=str(small.place / "history.sqlite"),
                UNRELATED="of nobody's business",
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, **wanted: str) -> dict[str, Any]:
        """Read events up to one that has these values, in itself or in its cell's event."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.lines.append(event)
            if wanted.items() <= {**event, **event.get("data", {}), "event": event["event"]}.items():
                return event
        raise AssertionError(f"{wanted} never came: {self.lines[-5:]} {self.rest()}")

    def open_gates(self) -> None:
        for name in ("held", "late"):
            (self.gates / name).write_text("open")

    def rest(self) -> str:
        """Read what comes until the end; returns what is printed as an error."""
        out, errors = self.process.communicate()
        self.lines += [json.loads(line) for line in out.splitlines()]
        return errors

    def results(self) -> dict[str, Any]:
        document = json.loads((self.small.place / "m-matrix/results.json").read_text())
        return {result["cell"]["name"]: result for result in document["results"]}


def of_build(events: list[dict[str, Any]], cell: str) -> list[str]:
    return [event["data"]["event"] for event in events if event["event"] == "CellEvent" and event["cell"] == cell]


def test_cells_of_a_cluster_look_like_those_of_this_machine(small: SmallElements, cluster: DaskCluster) -> None:
    run = Running(small, cluster, SQUARE)
    assert "waiting for one" in run.until(event="Note")["text"], "there is no worker yet"
    cluster.work("w1")
    cluster.work("w2", nanny=True)
    errors = run.rest()
    assert run.process.returncode == 0, errors
    results = run.results()
    assert {result["outcome"] for result in results.values()} == {"success"}
    assert {attempt["worker"] for result in results.values() for attempt in result["attempts"]} == {"w1", "w2"}
    for name, result in results.items():
        folder = small.place / "m-matrix/cells" / name
        (output,) = result["outputs"]
        data = (folder / output["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (output["size"], output["sha256"])
        assert "Build completed successfully" in (folder / "build.log").read_text()
        kinds = of_build(run.lines, name)
        assert (kinds[0], kinds[-1]) == ("BuildStarted", "BuildFinished")
        assert not list(folder.glob("*.part"))
    assert any("said by one" in log.read_text() for log in small.place.glob("m-matrix/cells/*/*/build.log"))
    assert sum(result["steps_cached"] for result in results.values()) > 0, "layers came from the remote store"
    deadline = time.monotonic() + 20
    while cluster.left("w1") + cluster.left("w2") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert cluster.left("w1") + cluster.left("w2") == [], "workers keep no image"


def test_a_worker_that_dies_costs_its_cell_and_no_other(small: SmallElements, cluster: DaskCluster) -> None:
    for name in ("w1", "w2", "w3"):
        cluster.work(name)
    run = Running(small, cluster, GATED)
    waiting: set[str] = set()
    while waiting != {"local/held", "local/late"}:
        waiting.add(run.until(event="CellEvent", step="extra-data.d/90-gate")["cell"])
    names = ("w1", "w2", "w3")
    busy = [name for name in names if any("free" not in str(path) for path in cluster.left(name))]
    victim = random.choice(busy)
    cluster.kill(victim)
    lost = run.until(event="CellFinished", failure="worker lost")
    run.open_gates()
    errors = run.rest()
    assert run.process.returncode == 0, errors
    results = run.results()
    assert {result["outcome"] for result in results.values()} == {"success"}
    assert {name: len(result["attempts"]) for name, result in results.items() if name != "local/free"} == {
        name: 2 if name == lost["cell"] else 1 for name in ("local/held", "local/late")
    }
    first, second = results[lost["cell"]]["attempts"]
    assert (first["worker"], first["failure"], first["reason"]) == (
        victim, "worker lost", f"the worker {victim} is gone",
    )  # fmt: skip
    assert second["worker"] != victim
    log = (small.place / "m-matrix/cells" / lost["cell"] / "build.log").read_text()
    assert f"dibble: the worker {victim} is gone" in log
    assert log.count("Build completed successfully") == 1


def test_a_scheduler_that_comes_back_gets_the_cells_again(small: SmallElements, cluster: DaskCluster) -> None:
    cluster.work("w1")
    run = Running(small, cluster, GATED)
    run.until(event="CellFinished", cell="local/free")
    run.until(event="CellEvent", step="extra-data.d/90-gate")
    cluster.kill("scheduler")
    run.until(event="CellFinished", failure="worker lost")
    cluster.kill("w1")
    cluster.schedule()
    run.until(event="Note", text=f"the scheduler {cluster.address} is back")
    cluster.work("w2")
    run.until(event="CellEvent", step="extra-data.d/90-gate")
    run.process.send_signal(signal.SIGINT)
    run.rest()
    assert run.process.returncode == 130
    deadline = time.monotonic() + 20
    while cluster.left("w2") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert cluster.left("w2") == [], "the cell was ended on its worker too"
    run.open_gates()
    again = Running(small, cluster, GATED)
    errors = again.rest()
    assert again.process.returncode == 0, errors
    started = [event["cell"] for event in again.lines if event["event"] == "CellStarted"]
    assert sorted(started) == ["local/held", "local/late"], "what was done is kept"


def test_what_cannot_be_used_is_one_error(small: SmallElements, cluster: DaskCluster, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "src/dibble", tmp_path / "src/dibble", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/dibble/__init__.py").write_text('__version__ = "0.0.9"\n')
    (small.place / "file").write_text("no directory")
    run = Running(small, cluster, GATED, "--remote", "file/cache")
    assert "waiting for one" in run.until(event="Note")["text"]
    cluster.work("old", code=tmp_path / "src")
    cluster.work("new")
    first, second = sorted(run.until(event="Note", level="warning")["text"] for _ in range(2))
    assert first.startswith(f"not used: the remote store {small.place}/file/cache refuses what the worker new writes: ")
    version = f"the worker old has dibble 0.0.9, and here is {__version__}"
    assert second == f"not used: {version}"
    run.process.send_signal(signal.SIGINT)
    run.rest()
    assert run.process.returncode == 130
    cluster.kill("new")
    run = Running(small, cluster, GATED)
    assert run.rest().startswith(f"dibble: {version}\n"), "it is said at once where none can be used"
    assert run.process.returncode == 1


def test_a_scheduler_that_does_not_answer_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(HostError, match=r"the scheduler tcp://127\.0\.0\.1:1 does not answer"):
        DaskPool(address="tcp://127.0.0.1:1")
