"""A matrix of small images: interrupted and gone on with, stopped early, tried again, with every failure classed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements
from tests.leftovers import left_after_a_while
from tests.people import leaving_sessions

from dibble.errors import HookFailed, HookOutput
from dibble.fleet.classify import classify
from dibble.fleet.model import FailureClass
from dibble.run.failure_evidence import look
from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.syscalls import mount

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

WAIT = 'while [ ! -e "$DIB_GATES/$GATE" ]; do sleep 0.1; done'
"""A script that ends when the test says so, so that a cell is running when it is interrupted."""

SQUARE = """\
settings: {elements-path: [elements], skip-base: true, elements: [small]}
axes:
  variant:
    - {name: one, elements: one}
    - {name: two, elements: [one, two]}
  format: [tar, oci]
"""


@pytest.fixture
def small(ordinary_user: Person) -> SmallElements:
    """`one` leaves a file; `two` does what the variable HOW says."""
    found = SmallElements(ordinary_user, ordinary_user.directory("matrix"))
    for name in ("one", "two", "gate"):
        found.write(f"{name}/README.rst", f"{'=' * len(name)}\n{name}\n{'=' * len(name)}\nFor tests.\n")
    found.script("one/install.d/10-one", "echo one > /opt/one")
    found.script("two/install.d/10-two", "cat /opt/one > /opt/two")
    found.script("gate/extra-data.d/90-gate", WAIT)
    return found


def matrix(small: SmallElements, text: str, *words: str, check: bool = True, **variables: str) -> list[dict[str, Any]]:
    """Run a matrix; its events."""
    path = small.write("../m.yaml", text)
    done = small.run("matrix", path.name, "--json", *words, check=check, **variables)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def ended(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last end of each cell."""
    return {event["cell"]: event for event in events if event["event"] == "CellFinished"}


def outcomes(events: list[dict[str, Any]]) -> dict[str, str]:
    return {name: event["outcome"] for name, event in ended(events).items()}


def started(events: list[dict[str, Any]]) -> list[str]:
    return [event["cell"] for event in events if event["event"] == "CellStarted"]


def ran(events: list[dict[str, Any]], step: str) -> list[str]:
    """The cells in which a step was run and not found."""
    return [
        event["cell"]
        for event in events
        if event["event"] == "CellEvent" and event["data"]["event"] == "StepFinished" and event["data"]["step"] == step
    ]


def test_cells_share_what_they_have_in_common(small: SmallElements) -> None:
    events = matrix(small, SQUARE, "-j", "2")
    assert set(outcomes(events).values()) == {"success"}
    assert len(ran(events, "root.d/10-small")) == 1, "the base was made once"
    for step in ("install.d/10-one", "install.d/10-two"):
        assert len(ran(events, step)) == 1, step
    assert "local/two-oci" not in {cell for step in ("engine/finish", "engine/fstab") for cell in ran(events, step)}
    cell = small.place / "m-matrix/cells/local/two-tar"
    with tarfile.open(cell / "two.tar") as archive:
        assert {"./opt/one", "./opt/two"} <= {f"./{name.removeprefix('./')}" for name in archive.getnames()}
    assert "Build completed successfully" in (cell / "build.log").read_text()
    small.person.dibble("build", "cell.yaml", cwd=cell, env=small.environment())  # the same by hand


def test_a_run_leaves_its_table_its_reports_and_a_line_in_the_history(small: SmallElements) -> None:
    small.write("../m.yaml", SQUARE)
    history = {"DIBBLE_HISTORY": str(small.place / "history.sqlite")}
    done = small.person.dibble("matrix", "m.yaml", cwd=small.place, env=small.environment(**history))
    assert "|one-tar|success|" in done.stdout
    assert f"report: {small.place}/m-matrix/report.html" in done.stdout
    kept = {path.name for path in (small.place / "m-matrix").iterdir()}
    assert {"report.html", "junit.xml", "results.json"} <= kept
    again = small.person.dibble("report", "m-matrix", cwd=small.place, env=small.environment(**history))
    assert again.stdout in done.stdout
    listed = small.person.dibble("report", "--history", "--json", cwd=small.place, env=small.environment(**history))
    (run,) = json.loads(listed.stdout)["runs"]
    assert run["outcomes"] == {"success": 4}


class Running:
    """`dibble matrix` in the background, with gates that its cells wait at."""

    def __init__(self, small: SmallElements, text: str) -> None:
        self.small = small
        self.path = small.write("../m.yaml", text)
        self.gates = small.place / "gates"
        self.gates.mkdir(exist_ok=True)
        self.gates.chmod(0o777)
        self.mark = f"DIBBLE_TEST_MARK={small.mark}"
        self.lines: list[dict[str, Any]] = []

    def start(self) -> None:
        person = self.small.person
        more = {"DIB_GATES": str(self.gates), "DIBBLE_TEST_MARK": self.small.mark}
        self.process = subprocess.Popen(
            [person.checkout / "dibble", "matrix", self.path.name, "--json", "-j", "2"],
            cwd=self.small.place,
            env=self.small.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            user=None if os.getuid() == person.uid else person.uid,
            group=None if os.getuid() == person.uid else person.gid,
            extra_groups=None if os.getuid() == person.uid else [],
        )

    def until(self, **wanted: str) -> None:
        """Read events up to one that has these values, in itself or in its cell's event."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.lines.append(event)
            if wanted.items() <= {**event, **event.get("data", {}), "event": event["event"]}.items():
                return
        raise AssertionError(f"{wanted} never came: {self.lines[-5:]}")

    def open(self, name: str) -> None:
        (self.gates / name).touch()

    def rest(self) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        self.lines += [json.loads(line) for line in self.process.stdout]
        self.process.wait()
        return self.lines


GATED = """\
settings: {elements-path: [elements], skip-base: true, elements: [small, one], outputs: tar}
axes:
  variant:
    - {name: free}
    - {name: held, elements: gate, environment: {GATE: held}}
    - {name: late, elements: gate, environment: {GATE: late}}
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_with_what_is_not_done(small: SmallElements, how: signal.Signals) -> None:
    with leaving_sessions(small.person):
        run = Running(small, GATED)
        run.start()
        run.until(event="CellFinished", cell="local/free")
        run.until(event="CellEvent", step="extra-data.d/90-gate")
        if how is signal.SIGINT:
            os.killpg(run.process.pid, how)  # as a terminal does
        else:
            run.process.send_signal(how)
        run.rest()
        assert run.process.returncode == (130 if how is signal.SIGINT else -how)
        assert left_after_a_while(run.mark) == [], "nothing runs on"
        assert not list((small.place / "m-matrix/cells").rglob("held.tar")), "nothing half-written has its name"
        again = Running(small, GATED)
        for name in ("held", "late"):
            again.open(name)
        again.start()
        events = again.rest()
    assert started(events) == ["local/held", "local/late"]
    assert set(outcomes(events).values()) == {"success"}
    assert events[0]["done"] == 1


def test_fail_fast_ends_a_cell_that_runs(small: SmallElements) -> None:
    text = GATED.replace("{name: free}", "{name: bad, elements: two, environment: {HOW: bad}}")
    small.script("two/extra-data.d/95-two", "exit 3")
    path = small.write("../m.yaml", text)
    gates = {"DIB_GATES": "/nonexistent"}
    done = small.run("matrix", path.name, "--json", "--fail-fast", "-j", "2", check=False, **gates)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert outcomes(events) == {"local/bad": "failed", "local/held": "skipped", "local/late": "skipped"}
    assert done.returncode == 1


FAILURES = """\
settings: {elements-path: [elements], skip-base: true, elements: [small, one, two], outputs: tar}
axes:
  variant:
    - {name: script, environment: {HOW: exit 3}}
    - {name: tool, environment: {HOW: no-such-program --x}}
    - {name: network, environment: {HOW: "dib-engine fetch http://127.0.0.1:9/x /tmp/x"}}
    - {name: slow, environment: {HOW: sleep 1000}, timeout: 6}
    - {name: flaky, environment: {HOW: 'mkdir "$PLACE" && exit 7; rmdir "$PLACE"'}, retries: 1}
    - {name: disk, outputs: raw, size: 3MiB, environment: {HOW: "true"}}
"""


def test_a_failure_has_the_class_of_what_happened(small: SmallElements) -> None:
    small.script("two/extra-data.d/80-two", f'PLACE=$DIB_IMAGE_CACHE/{small.mark}\neval "$HOW"')
    events = matrix(small, FAILURES, "-j", "2", check=False)
    found = {name.removeprefix("local/"): event for name, event in ended(events).items()}
    assert {name: event["failure"] for name, event in found.items()} == {
        "script": "script error",
        "tool": "missing tool",
        "network": "network",
        "slow": "timeout",
        "flaky": "",
        "disk": "bad input",
    }
    assert found["script"]["reason"] == "80-two ended with status 3"
    assert found["network"]["hint"] == "127.0.0.1:9 does not answer: check the network and the proxy variables"
    assert found["flaky"]["outcome"] == "success"
    assert found["flaky"]["flaky"]
    log = (small.place / "m-matrix" / found["script"]["log"]).read_text()
    assert "  class: script error" in log


def test_a_full_file_system_is_seen(tmp_path: Path) -> None:
    def inside() -> list[bool]:
        mount("tmpfs", tmp_path, "tmpfs", 0, "size=2m")
        seen = []
        for size in (64 << 10, 4 << 20):
            error = HookFailed("it failed", status=1, output=HookOutput())
            with contextlib.suppress(OSError):
                (tmp_path / f"{size}").write_bytes(bytes(size))
            look(error, [tmp_path], [], "")
            seen.append(classify(error) is FailureClass.DISK_FULL and f"no room is left in {tmp_path}" in error.hint)
        return seen

    assert run_in_namespace(inside) == [False, True]


HOST = """settings: {elements-path: [elements], skip-base: true, elements: [small], outputs: tar}
axes:
  host: [local, {name: bare, tree: bare.tar}]
  variant: [{name: one, elements: one}]
"""


def test_a_host_without_python_gets_one_and_builds_the_same_bytes(small: SmallElements) -> None:
    """The tree does not say which mirrors are near, and has no file that a variable names."""
    small.script("one/extra-data.d/20-one", 'cat "$DIB_NAMED"; env | grep ^DIBBLE_DEBIAN > "$TMP_HOOKS_PATH/mirrors"')
    small.script("one/install.d/10-one", "cp /tmp/in_target.d/mirrors /opt/one")
    small.run("build", "-n", "-t", "tar", "-o", "bare", "small")
    named = str(small.write("../named/file", "named\n"))
    events = matrix(small, HOST, check=True, DIB_NAMED=named)
    assert outcomes(events) == {"local/one": "success", "bare/one": "success"}
    ours, theirs = ((small.place / f"m-matrix/cells/{host}/one/one.tar").read_bytes() for host in ("local", "bare"))
    assert ours == theirs


def test_a_tree_without_a_shell_is_no_host(small: SmallElements) -> None:
    small.write("../bare.tar/usr/bin/true", "")
    event = ended(matrix(small, HOST, check=False))["bare/one"]
    assert (event["outcome"], event["failure"]) == ("failed", "missing tool")
    assert "the host bare has no Python 3.11 or newer, and no /bin/sh" in event["reason"]
    assert "packages: [python3]" in event["hint"]
