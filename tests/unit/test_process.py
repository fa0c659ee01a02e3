"""Running programs: what happens to an interruption."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SOURCE = Path(__file__).parents[2] / "src"
INTERRUPTED_IN_A_FORK = """
import os, signal
from dibble.sandbox.process import run, spawn
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    {call}
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.parametrize(
    "call", ["run(['/bin/sleep', '30'], env={})", "spawn(['/bin/sleep', '30'], env={}).wait()"], ids=["run", "spawn"]
)
def test_an_interruption_while_a_program_starts_is_heard(call: str) -> None:
    code = INTERRUPTED_IN_A_FORK.format(call=call)
    argv = [sys.executable, "-c", code]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=20, check=False, env={"PYTHONPATH": str(SOURCE)}
    )
    assert done.stdout == "heard\n", done.stderr


def test_a_program_gets_the_signals_that_its_caller_got() -> None:
    code = (
        "from dibble.sandbox.process import run\n"
        "print(run(['/bin/cat', '/proc/self/status'], env={}).output)"  # a shell would unblock what is blocked
    )
    environment = {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    blocked = next(line for line in done.stdout.splitlines() if line.startswith("SigBlk"))
    assert int(blocked.split()[1], 16) == 0
