"""The process of dnf's library: which one serves which request, when a new one starts, and one that breaks down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dibble.errors import ToolFailed
from dibble.packages.dnf_process import DnfProcess
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from dibble.sandbox.process import Running

pytestmark = pytest.mark.unit

WORKER = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("break"):
        sys.exit("no such library")
    print("working on", asked["name"], flush=True)
    print("\\x1edibble " + json.dumps({"name": asked["name"], "process": os.getpid(), "home": sys.argv[1]}), flush=True)
"""


class EchoingToolbox(HostToolbox):
    """Starts a program that answers as dnf's does, but knows nothing of packages."""

    def spawn(self, argv: Sequence[str], **options: Any) -> Running:  # those of the method that it passes them to
        return super().spawn([argv[0], argv[1], WORKER, *argv[3:]], **options)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".rpmmacros").write_text("%_dbpath /usr/lib/sysimage/rpm\n")
    return tmp_path


@pytest.fixture
def process() -> Iterator[DnfProcess]:
    found = DnfProcess(EchoingToolbox())
    yield found
    found.close()


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_has_decided_carries_out_and_ends_with_it(process: DnfProcess, home: Path) -> None:
    asked, heard = {"name": "web"}, list[str]()
    process.start({}, home)
    decided = process.decide(asked)
    assert decided["home"] == str(home)
    assert process.has_decided(asked)
    assert not process.has_decided(dict(asked)), "another request, though with the same words"
    done = process.apply({"name": "do it"}, heard.append)
    assert (done["name"], done["process"]) == ("do it", decided["process"])
    assert heard == ["working on do it"]
    assert not process.has_decided(asked)
    assert not lives(decided["process"])


def test_one_that_waits_serves_the_next_request_and_one_that_has_decided_serves_no_other(
    process: DnfProcess, home: Path
) -> None:
    process.start({}, home)
    process.start({}, home)
    first = process.decide({"name": "one"})["process"]
    process.start({}, home)
    second = process.decide({"name": "two"})["process"]
    assert second != first
    assert not lives(first)


def test_other_settings_of_rpm_are_for_a_new_one(process: DnfProcess, home: Path, tmp_path: Path) -> None:
    process.start({"PLACE": "1"}, home)
    waiting = process._running
    process.start({"PLACE": "1"}, home)
    assert process._running is waiting
    (tmp_path / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
    process.start({"PLACE": "1"}, home)
    assert process._running is not waiting, "it has read the settings when it began"


def test_what_one_that_breaks_down_has_printed_is_told(process: DnfProcess, home: Path) -> None:
    process.start({}, home)
    with pytest.raises(ToolFailed) as caught:
        process.decide({"break": True})
    assert "no such library" in str(caught.value)
    assert not process.has_decided({"break": True})
