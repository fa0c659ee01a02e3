"""A run's journal: which cells are done. A line of JSON for each thing that happened, written when it did.

A run that was killed at any moment leaves whole lines and perhaps half a last one, which is passed over. Nothing waits
for the disk: after a power failure some cells are built again, and found in the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dibble.errors import HostError, OutputError
from dibble.fleet.model import Attempt, Cell, CellResult, FailureClass, Outcome, OutputFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

JOURNAL = "run.jsonl"


@dataclass(slots=True)
class RunState:
    """A run: what it is, and the last results of its cells. `ended` when it came to its end."""

    id: str
    began: float
    results: dict[str, CellResult] = field(default_factory=dict)
    ended: bool = False


def new_state() -> RunState:
    now = time.time()
    moment = datetime.fromtimestamp(now, UTC)
    return RunState(f"{moment:%Y-%m-%dT%H.%M.%S}-{secrets.token_hex(3)}", now)


class Journal:
    """The journal in a run's directory, held open and locked."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"the directory of the run, {directory}, cannot be written: {error.strerror}",
                hint="give another one with --out",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise HostError(
                f"another run works in {directory}", hint="wait for it, or give another directory with --out"
            ) from error

    def read(self) -> RunState | None:
        """The last run in the journal; None when there is none."""
        state: RunState | None = None
        self._file.seek(0)
        for line in self._file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            match entry:
                case {"run": id, "began": began}:
                    state = RunState(id, began)
                case {"result": data} if state is not None:
                    result = result_of(data)
                    state.results[result.cell.name] = result
                case {"ended": _} if state is not None:
                    state.ended = True
                case {"resumed": _} if state is not None:
                    state.ended = False
        return state

    def begin(self, state: RunState, *, resumed: bool) -> None:
        if resumed:
            self._write({"resumed": time.time()})
            return
        self._file.truncate(0)
        self._write({"run": state.id, "began": state.began})

    def add(self, result: CellResult) -> None:
        self._write({"result": asdict(result)})

    def end(self) -> None:
        self._write({"ended": time.time()})

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write("\n" * self._is_cut() + json.dumps(entry) + "\n")
        self._file.flush()

    def _is_cut(self) -> bool:
        """Whether the last line was only half written."""
        end = self._file.tell()
        if not end:
            return False
        last = os.pread(self._file.fileno(), 1, end - 1)
        return last != b"\n"


@contextlib.contextmanager
def journal(directory: Path) -> Iterator[Journal]:
    found = Journal(directory)
    try:
        yield found
    finally:
        found.close()


def result_of(data: Mapping[str, Any]) -> CellResult:
    """A result as `dataclasses.asdict` and JSON made it."""
    cell = data["cell"]
    return CellResult(
        **{
            **data,
            "cell": Cell(**{**cell, "needs": tuple(cell["needs"])}),
            "outcome": Outcome(data["outcome"]),
            "attempts": tuple(attempt_of(one) for one in data["attempts"]),
            "timings": tuple((str(what), float(seconds)) for what, seconds in data["timings"]),
            "outputs": tuple(OutputFile(**one) for one in data["outputs"]),
        }
    )


def attempt_of(data: Mapping[str, Any]) -> Attempt:
    failure = data["failure"]
    return Attempt(
        **{**data, "outcome": Outcome(data["outcome"]), "failure": FailureClass(failure) if failure else None}
    )


def kept(state: RunState, cells: Mapping[str, Cell]) -> dict[str, CellResult]:
    """The results of a run that hold for these cells: successes whose key is the same."""
    return {
        name: replace(result, cell=cells[name], resumed=True)
        for name, result in state.results.items()
        if name in cells and result.outcome is Outcome.SUCCESS and result.cell.key == cells[name].key
    }
