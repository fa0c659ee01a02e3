"""Every run of every matrix, in one SQLite file: what reports compare with and draw trends from.

Each call opens the file for itself, so processes and threads may share a History. Writers wait for each other
(`TIMEOUT`); a run is recorded whole or not at all. Recording a run again, when it was resumed, replaces it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dibble.errors import StoreError, UsageError
from dibble.fleet.model import FailureClass, Outcome
from dibble.fleet.reports.as_json import head_of, result_document, run_of
from dibble.fleet.summary import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dibble.fleet.model import MatrixRun

TIMEOUT = 60.0
"""Seconds that a writer waits for others; recording 500 cells takes some 0.1 s."""
APPLICATION = 0x6469626C
"""`dibl`: marks the file as ours (https://sqlite.org/pragma.html#pragma_application_id)."""
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE run (
            id TEXT PRIMARY KEY, matrix TEXT NOT NULL, version TEXT NOT NULL, began REAL NOT NULL, ended REAL,
            head TEXT NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX run_of_matrix ON run (matrix, began)",
        """CREATE TABLE cell (
            run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE, position INTEGER NOT NULL, name TEXT NOT NULL,
            outcome TEXT NOT NULL, failure TEXT, flaky INTEGER NOT NULL, seconds REAL NOT NULL, size INTEGER NOT NULL,
            result TEXT NOT NULL, PRIMARY KEY (run, position))""",
    ),
)
"""What leads from one version of the schema to the next; user_version counts those that were run. Only ever appended
to. `head` and `result` are JSON as in results.json; the columns beside them are what trends ask for."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run in a list."""

    id: str
    matrix: str
    version: str
    began: float
    ended: float | None
    outcomes: Mapping[Outcome, int]
    flaky: int
    seconds: float
    """All attempts of all cells added up."""
    size: int
    """Bytes of all outputs."""


@dataclass(frozen=True, slots=True)
class Point:
    """What came of a cell in one run. `size` is in bytes, as `summary.size_of` counts."""

    run: str
    began: float
    outcome: Outcome
    failure: FailureClass | None
    flaky: bool
    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class History:
    """The history in one file, which is made by the first `record`. Everything raises StoreError."""

    path: Path

    @staticmethod
    def default_path(environ: Mapping[str, str]) -> Path:
        """$DIBBLE_HISTORY, else `matrix-history.sqlite` in the user's state directory ($XDG_STATE_HOME/dibble)."""
        from platformdirs import user_state_path

        return Path(environ.get("DIBBLE_HISTORY") or user_state_path("dibble") / "matrix-history.sqlite")

    def record(self, run: MatrixRun) -> None:
        """Put a run in, instead of an earlier state of it."""
        with self._opened(write=True) as connection:
            connection.execute("DELETE FROM run WHERE id = ?", (_text(run.id),))
            connection.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)",
                (_text(run.id), _text(run.matrix), _text(run.version), run.began, run.ended, json.dumps(head_of(run))),
            )
            connection.executemany(
                "INSERT INTO cell VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        _text(run.id), position, _text(result.cell.name), result.outcome.value,
                        result.failure and result.failure.value, result.flaky, result.seconds, size_of(result),
                        json.dumps(result_document(result)),
                    )
                    for position, result in enumerate(run.results)
                ),
            )  # fmt: skip

    def runs(self, matrix: str | None = None, *, last: int | None = None) -> list[RecordedRun]:
        """The runs of a matrix, or of all, the newest first; with `last` only so many."""
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT id, matrix, version, began, ended FROM run WHERE ?1 IS NULL OR matrix = ?1"
                " ORDER BY began DESC, id DESC LIMIT ?2",
                (matrix and _text(matrix), -1 if last is None else last),
            ).fetchall()
            return [self._recorded(connection, row) for row in rows]

    def _recorded(self, connection: sqlite3.Connection, row: tuple[str, str, str, float, float | None]) -> RecordedRun:
        rows = connection.execute(
            "SELECT outcome, COUNT(*), SUM(flaky), SUM(seconds), SUM(size) FROM cell WHERE run = ? GROUP BY outcome",
            (row[0],),
        ).fetchall()
        numbers = {name: number for name, number, *_ in rows}
        return RecordedRun(
            *row,
            outcomes={outcome: numbers[outcome.value] for outcome in Outcome if outcome.value in numbers},
            flaky=sum(flaky for _, _, flaky, _, _ in rows),
            seconds=sum(seconds for _, _, _, seconds, _ in rows),
            size=sum(size for _, _, _, _, size in rows),
        )

    def load(self, run: str) -> MatrixRun:
        """The run with this id, as it was recorded. Raises UsageError when there is none."""
        with self._opened() as connection:
            found = connection.execute("SELECT head FROM run WHERE id = ?", (_text(run),)).fetchone()
            if found is None:
                raise UsageError(
                    f'no run "{run}" in the history {self.path}', hint="`dibble report --history` lists them"
                )
            rows = connection.execute("SELECT result FROM cell WHERE run = ? ORDER BY position", (_text(run),))
            try:
                document = json.loads(found[0]) | {"results": [json.loads(result) for (result,) in rows]}
                return run_of(document, self.path)
            except (ValueError, TypeError, UsageError) as error:
                self._damaged(error)

    def previous(self, run: MatrixRun) -> MatrixRun | None:
        """The last run of the same matrix that began before this one and came to its end."""
        with self._opened() as connection:
            found = connection.execute(
                "SELECT id FROM run WHERE matrix = ? AND id != ? AND began <= ? AND ended IS NOT NULL"
                " ORDER BY began DESC, id DESC LIMIT 1",
                (_text(run.matrix), _text(run.id), run.began),
            ).fetchone()
        return self.load(found[0]) if found else None

    def trends(self, matrix: str, *, until: float | None = None, last: int = 30) -> dict[str, tuple[Point, ...]]:
        """By the name of a cell: what came of it in the last runs (that began not after `until`), the oldest first."""
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT cell.name, run.id, run.began, outcome, failure, flaky, seconds, size FROM cell"
                " JOIN (SELECT id, began FROM run WHERE matrix = ?1 AND (?2 IS NULL OR began <= ?2)"
                " ORDER BY began DESC, id DESC LIMIT ?3) AS run ON run.id = cell.run"
                " ORDER BY run.began, run.id, position",
                (_text(matrix), until, last),
            ).fetchall()
        found: dict[str, list[Point]] = {}
        try:
            for name, run, began, outcome, failure, flaky, seconds, size in rows:
                kind = FailureClass(failure) if failure else None
                found.setdefault(name, []).append(Point(run, began, Outcome(outcome), kind, bool(flaky), seconds, size))
        except ValueError as error:
            self._damaged(error)
        return {name: tuple(points) for name, points in found.items()}

    @contextlib.contextmanager
    def _opened(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """The file in one transaction. A reader of a history that is not there yet sees an empty one."""
        try:
            if not self.path.exists():
                if not write:
                    with contextlib.closing(_schema(sqlite3.connect(":memory:", isolation_level=None))) as nothing:
                        yield nothing
                    return
                self._make()
            connection = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None)
            with contextlib.closing(connection):
                self._migrate(connection)
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
                connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"the history {self.path} cannot be used: {error}",
                hint="look whether its directory and file can be written and the disk has space,"
                " or name another file in DIBBLE_HISTORY",
            ) from error
        except sqlite3.DatabaseError as error:
            self._damaged(error)
        except OSError as error:
            raise StoreError(
                f"the history {self.path} cannot be used: {error.strerror}",
                hint="name another file in DIBBLE_HISTORY",
            ) from error

    def _make(self) -> None:
        """An empty history, made aside: whoever opens it finds all tables. The loser of a race drops its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent) as aside:
            new = Path(aside) / "new"
            with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")  # readers and one writer side by side
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                _schema(connection)
            with contextlib.suppress(FileExistsError):
                os.link(new, self.path)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Bring an older file to this version. Raises StoreError for a newer one, and for what is no history."""
        version = _number(connection, "user_version")
        if _number(connection, "application_id") != APPLICATION or version < 1:
            raise StoreError(
                f"{self.path} is no history of dibble", hint="name another file in DIBBLE_HISTORY, or move it away"
            )
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the history {self.path} is of a newer dibble (version {version}, this one knows {len(MIGRATIONS)})",
                hint="update dibble, or name another file in DIBBLE_HISTORY",
            )
        if version < len(MIGRATIONS):
            _schema(connection)

    def _damaged(self, error: Exception) -> NoReturn:
        raise StoreError(
            f"the history {self.path} is damaged: {error}",
            hint=f"move it away (mv {self.path} {self.path}.damaged); a new one is made by itself, and"
            " `dibble report DIR --record` puts a run that still has its directory into it",
        ) from error


def _schema(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Run what is missing of MIGRATIONS, all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    for statements in MIGRATIONS[_number(connection, "user_version") :]:  # asked again: another may have been quicker
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")
    return connection


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)


def _text(text: str) -> str:
    """As in JSON (`as_json`): lone surrogates, which no file can hold, in letters."""
    return text.encode("utf-8", "backslashreplace").decode()
