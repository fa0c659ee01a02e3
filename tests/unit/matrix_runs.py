"""Runs of matrices for the tests of reports: a large one that looks real, and strategies for odd ones."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from dibble.fleet.model import Attempt, Cell, CellResult, FailureClass, MatrixRun, Outcome, OutputFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

HOSTS = (
    "debian-12", "debian-13", "debian-14", "ubuntu-24.04", "ubuntu-26.04", "fedora-43", "fedora-44",
    "centos-stream-9", "centos-stream-10", "opensuse-15.6", "opensuse-16.0",
)  # fmt: skip
TARGETS = (
    "hostgen", "tox", "centos-9", "centos-10", "debian-bookworm", "debian-trixie", "debian-sid", "fedora-42",
    "fedora-43", "fedora-44", "gentoo-latest", "opensuse-15.6", "opensuse-16.0", "ubuntu-jammy", "ubuntu-noble",
    "ubuntu-plucky", "ubuntu-resolute",
)  # fmt: skip
CAUSES = (
    (FailureClass.MID_SYNC, "the mirror of Fedora 44 lists packages that it does not have yet", "try again in an hour"),
    (FailureClass.MISSING_PACKAGE, "no repository has the package cloud-initramfs-growroot", "map its name in pkg-map"),
    (FailureClass.SCRIPT, "install.d/50-selinux of element redhat-common ended with status 3", "see the log's end"),
    (FailureClass.BOOT, "no login prompt on the serial line within 300 s", "dibble boot --show-console IMAGE"),
    (FailureClass.DISK_FULL, "no space left on the device of the store", "dibble cache gc --max-size 20GB"),
)
BEGAN = 1_795_946_100.0
LOG = (
    "dibble version 0.1.0\nBuilding elements: {target} vm\n\x1b[1;32mRunning\x1b[0m root.d/10-{target}\r\n"
    "Fetching 185 packages\rFetching 185 packages: done\nname of a person: \xe4\xf6\xfc, not in UTF-8\n"
)


def result(
    host: str = "debian-12",
    target: str = "fedora-44",
    outcome: Outcome = Outcome.SUCCESS,
    failure: FailureClass | None = None,
    reason: str = "",
    *,
    seconds: float = 60.0,
    size: int = 300_000_000,
    allow_failure: bool = False,
    earlier: Sequence[Attempt] = (),
    **more: object,
) -> CellResult:
    """One cell's result with one attempt, none when it never ran."""
    cell = Cell(
        name=f"{host}/{target}", host=host, target=target, key=f"{host}-{target}", allow_failure=allow_failure,
        axes={"host": host, "target": target, "architecture": "amd64"},
    )  # fmt: skip
    ran = outcome in (Outcome.SUCCESS, Outcome.FAILED)
    attempt = Attempt("local", BEGAN, seconds, outcome, failure, reason, status=int(outcome is Outcome.FAILED))
    made = outcome is Outcome.SUCCESS and size
    made_by = CellResult(
        cell,
        outcome,
        attempts=(*earlier, attempt) if ran else (),
        why="" if ran else reason,
        outputs=(OutputFile(f"{target}.qcow2", "qcow2", size, size, "ab" * 32),) if made else (),
    )
    return replace(made_by, **more)  # type: ignore[arg-type] # fields by name


def run_of(*results: CellResult, **more: object) -> MatrixRun:
    """A run of just these."""
    run = MatrixRun(
        id="2026-11-29T10.55.00-1a2b3c",
        matrix="nightly",
        version="0.1.0",
        began=BEGAN,
        ended=BEGAN + 3600,
        hosts=tuple(dict.fromkeys(one.cell.host for one in results)),
        targets=tuple(dict.fromkeys(one.cell.target for one in results)),
        results=results,
    )
    return replace(run, **more)  # type: ignore[arg-type] # fields by name


def large_run(
    number: int = 0,
    *,
    hosts: Sequence[str] = HOSTS,
    targets: Sequence[str] = TARGETS,
    directory: Path | None = None,
) -> MatrixRun:
    """One of a series of nightly runs, the same for the same number; with a directory the logs are written there."""
    chance = random.Random(number)
    results = []
    for target in targets:
        pace = random.Random(target).uniform(40, 240)
        for host in hosts:
            steady = random.Random(f"{host} {target}").random()
            results.append(_large_result(host, target, pace, steady, chance))
    if directory:
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        for position, one in enumerate(results):
            if one.attempts:
                log = f"logs/{position:03}.log"
                lines = LOG.format(target=one.cell.target) + "".join(f"line {line}\n" for line in range(200))
                (directory / log).write_bytes((lines + one.reason + "\n").encode("latin-1"))
                results[position] = replace(one, log=log)
    began = BEGAN + number * 86_400
    lasted = sum(one.seconds for one in results) / 4
    run = run_of(*results, id=f"2026-11-{number:02}T02.00.00-{number:06x}", began=began, ended=began + lasted)
    return replace(run, hosts=tuple(hosts), targets=tuple(targets))


def _large_result(host: str, target: str, pace: float, steady: float, chance: random.Random) -> CellResult:
    size = int(random.Random(target).uniform(180e6, 900e6) * chance.uniform(0.985, 1.015))
    seconds = pace * chance.uniform(0.8, 1.3)
    if target == "gentoo-latest" and "opensuse" in host:
        return result(host, target, Outcome.UNSUPPORTED, reason="this kernel has no unprivileged overlay with xattrs")
    if steady > 0.985 or chance.random() > 0.985:
        failure, reason, hint = CAUSES[int(steady * 997) % len(CAUSES)]
        failed = result(host, target, Outcome.FAILED, failure, reason, seconds=seconds, allow_failure="sid" in target)
        last = replace(failed.attempts[-1], hint=hint)
        return replace(failed, attempts=(last,), steps_run=31, timings=(("fetch packages", 12.5), ("install.d", 20.0)))
    if target == "ubuntu-resolute" and host == "debian-14":
        return result(host, target, Outcome.SKIPPED, reason="debian-14/hostgen is needed, which failed")
    earlier: tuple[Attempt, ...] = ()
    if chance.random() > 0.985:
        reason = "ftp.debian.org did not answer for 60 s"
        earlier = (Attempt("local", BEGAN, 21.0, Outcome.FAILED, FailureClass.NETWORK, reason, status=1),)
    share = [chance.uniform(0.1, 1) for _ in range(5)]
    names = ("bootstrap", "fetch packages", "install packages", "hooks of elements", "write qcow2")
    timings = tuple((name, seconds * part / sum(share)) for name, part in zip(names, share, strict=True))
    ran = chance.choice((62, 62, 62, 4))
    boot = f"login after {seconds / 4:.0f} s" if target not in ("hostgen", "tox") else ""
    made = result(host, target, seconds=seconds, size=size, earlier=earlier, timings=timings, boot=boot)
    return replace(made, steps_run=ran, steps_cached=62 - ran)


TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "",
        "</script><script>alert(1)</script>",
        "\"'&<>]]>",
        "\x00\x07\x1b[31mred\x1b[0m\x7f",
        "\u2028\u2029\ufffe\u202e",
        "日本",
    ]
)
NUMBERS = st.floats(min_value=0, max_value=1e9)
SIZES = st.integers(min_value=0, max_value=2**62)
_ATTEMPTS = st.builds(
    Attempt,
    worker=TEXTS,
    began=NUMBERS,
    seconds=NUMBERS,
    outcome=st.sampled_from([Outcome.SUCCESS, Outcome.FAILED]),
    failure=st.none() | st.sampled_from(FailureClass),
    reason=TEXTS,
    hint=TEXTS,
    status=st.integers(0, 255),
)


def runs() -> SearchStrategy[MatrixRun]:
    """Any run that the types allow, with cells of different names."""
    cells = st.builds(
        Cell,
        name=TEXTS,
        host=TEXTS,
        target=TEXTS,
        key=TEXTS,
        axes=st.dictionaries(TEXTS, TEXTS, max_size=2),
        needs=st.lists(TEXTS, max_size=2).map(tuple),
        allow_failure=st.booleans(),
    )
    outputs = st.builds(OutputFile, name=TEXTS, format=TEXTS, size=SIZES, allocated=SIZES, sha256=TEXTS)
    results = st.builds(
        CellResult,
        cell=cells,
        outcome=st.sampled_from(Outcome),
        attempts=st.lists(_ATTEMPTS, max_size=3).map(tuple),
        steps_run=st.integers(0, 99),
        steps_cached=st.integers(0, 99),
        timings=st.lists(st.tuples(TEXTS, NUMBERS), max_size=2).map(tuple),
        outputs=st.lists(outputs, max_size=1).map(tuple),
        boot=TEXTS,
        log=TEXTS,
        resumed=st.booleans(),
        why=TEXTS,
    )
    names = st.lists(TEXTS, max_size=3).map(tuple)
    return st.builds(
        MatrixRun,
        id=TEXTS,
        matrix=TEXTS,
        version=TEXTS,
        began=NUMBERS,
        ended=st.none() | NUMBERS,
        hosts=names,
        targets=names,
        results=st.lists(results, max_size=3, unique_by=lambda one: one.cell.name).map(tuple),
    )
