"""`dibble elements test`: builds an element together with each of its test-elements (contract.md 9)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dibble.cli.elements_lint import chosen_elements
from dibble.elements.find import find_elements, search_path
from dibble.elements.own_tests import SHOULD_FAIL, tests_of
from dibble.errors import UsageError
from dibble.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.elements.find import Catalogue
    from dibble.elements.own_tests import ElementTest

LINES_SHOWN = 30
"""Of the output of a test that did not end as it should."""
_MARK = "dibble-elements-test: the build should fail"
_LOOK = f'if [ -e "$TMP_MOUNT_PATH/{SHOULD_FAIL}" ]; then echo "{_MARK}"; fi'
_AS_RAMDISK = (
    "import sys; sys.argv[0] = 'ramdisk-image-create';from dibble.cli.disk_image_create import main; sys.exit(main())"
)


class _Built(NamedTuple):
    """How a build ended. `marked` tells whether the target had the file that says that it should fail."""

    status: int
    marked: bool
    last: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`problem` is empty for a test that ended as it should."""

    test: ElementTest
    problem: str
    built: _Built


@click.command("test")
@click.argument("names", nargs=-1, metavar="[ELEMENT[/TEST]]...")
@click.option(
    "--system",
    default="debian-minimal",
    show_default=True,
    metavar="ELEMENT",
    help="The operating system for tests that bring none.",
)
@click.option("--list", "only_list", is_flag=True, help="Print the tests and build none.")
@click.option("-v", "--verbose", is_flag=True, help="Show all output of the builds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test_elements(names: tuple[str, ...], system: str, only_list: bool, verbose: bool, as_json: bool) -> int:
    """Build elements with their test-elements, without names all on ELEMENTS_PATH.

    A build that makes the file /tmp/dib-test-should-fail in the target has to fail, every other one has to succeed.
    Images are made in a temporary directory and removed. The exit status is 1 when a test ends as it should not.
    """
    catalogue = find_elements(search_path(os.environ))
    tests = _chosen_tests(names, catalogue, system)
    if only_list:
        if as_json:
            click.echo(json.dumps([_as_data(test) for test in tests], indent=2))
        else:
            for test in tests:
                click.echo(f"{test.id}  {' '.join(test.words)}  {test.formats}")
        return 0
    verdicts = []
    for test in tests:
        verdict = _verdict(test, _build(test, verbose=verbose and not as_json))
        verdicts.append(verdict)
        if not as_json:
            _tell(verdict)
    failed = [verdict for verdict in verdicts if verdict.problem]
    if as_json:
        rows = [
            {
                **_as_data(verdict.test),
                "passed": not verdict.problem,
                "problem": verdict.problem or None,
                "status": verdict.built.status,
                "seconds": round(verdict.built.seconds, 1),
                "output": list(verdict.built.last) if verdict.problem else [],
            }
            for verdict in verdicts
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(f"{len(verdicts)} test{'s' if len(verdicts) != 1 else ''}, {len(failed) or 'none'} failed", err=True)
    return 1 if failed else 0


def _as_data(test: ElementTest) -> dict[str, object]:
    return {"test": test.id, "elements": list(test.words), "formats": test.formats, "type": test.kind}


def _chosen_tests(names: Sequence[str], catalogue: Catalogue, system: str) -> list[ElementTest]:
    if system not in catalogue.elements:
        raise unknown("element", system, list(catalogue.elements))
    wanted: dict[str, list[str]] = {}
    for word in names:
        name, _, test = word.partition("/")
        wanted.setdefault(name, []).append(test)
    tests = []
    for element in chosen_elements(list(wanted), catalogue):
        found = tests_of(element, catalogue, system)
        chosen = wanted.get(element.name, [""])
        known = [test.name for test in found]
        for name in filter(None, chosen):
            if name not in known:
                raise unknown(f"test of {element.name}", name, known)
        tests += [test for test in found if "" in chosen or test.name in chosen]
    if not tests:
        what = " and ".join(wanted) or "the elements on ELEMENTS_PATH"
        raise UsageError(
            f"there is no test of {what}", hint="a test is an element in the directory test-elements of an element"
        )
    return tests


def _build(test: ElementTest, *, verbose: bool) -> _Built:
    """Build a test in a process of its own, as its author would on a command line."""
    from dibble.sandbox.process import spawn

    given = os.environ.get("ELEMENTS_PATH")
    environment = {
        **os.environ,
        "ELEMENTS_PATH": ":".join([str(test.directory), *([given] if given else [])]),
        "break": "before-cleanup,after-error",
        "break_outside_target": "1",
        "break_cmd": _LOOK,
        "DIB_NO_TIMESTAMP": "1",
        "DIB_QUIET": "0",
    }
    last: deque[str] = deque(maxlen=LINES_SHOWN)
    marked = False
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dibble-elements-test-") as place:
        options = ["-n", "-x", "-t", test.formats, "-o", f"{place}/image", *test.words]
        program = ["-c", _AS_RAMDISK] if test.kind == "ramdisk" else ["-m", "dibble", "build"]
        process = spawn([sys.executable, "-P", "-s", *program, *options], env=environment, cwd=Path.cwd())
        with process:  # an interruption ends it, and with it all that it has begun
            assert process.stdout is not None
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                marked = marked or line.strip() == _MARK
                last.append(line)
                if verbose:
                    click.echo(line)
            status = process.wait()
    return _Built(1 if status is None else status, marked, tuple(last), time.monotonic() - began)


def _verdict(test: ElementTest, built: _Built) -> _Verdict:
    if built.marked and not built.status:
        return _Verdict(test, "the build should have failed", built)
    if built.status and not built.marked:
        return _Verdict(test, f"the build ended with status {built.status}", built)
    return _Verdict(test, "", built)


def _tell(verdict: _Verdict) -> None:
    if not verdict.problem:
        click.echo(f"ok      {verdict.test.id}  {verdict.built.seconds:.1f} s")
        return
    click.echo(f"FAILED  {verdict.test.id}  {verdict.built.seconds:.1f} s: {verdict.problem}")
    for line in verdict.built.last:
        click.echo(f"        {line}")
