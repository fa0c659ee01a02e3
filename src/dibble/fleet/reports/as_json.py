"""A run as JSON and back: `results.json`, and what the history keeps (docs/matrix-results.md has the shape).

The fields are those of `fleet/model.py`. What follows from them (the sums of a run, whether a cell was flaky, its
seconds, class and reason) stands beside them for readers such as jq, and is not read back.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from dibble.errors import UsageError, Where
from dibble.fleet.model import CellResult, MatrixRun
from dibble.fleet.summary import summary_of

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import TypeAdapter

FORMAT = 1
"""Of the file. A reader refuses one that is newer; fields that are added do not make it newer."""
FILE_NAME = "results.json"


def run_as_json(run: MatrixRun) -> str:
    """The whole file, ending with a newline. Lone surrogates, which no encoding has, become `\\udcff` in letters."""
    summary = summary_of(run)
    document = {
        "format": FORMAT,
        **head_of(run),
        "summary": {
            "cells": summary.cells,
            "outcomes": {outcome.value: number for outcome, number in summary.outcomes.items()},
            "failures": {failure.value: number for failure, number in summary.failures.items()},
            "flaky": summary.flaky,
            "allowed_failures": summary.allowed,
            "seconds_of_cells": summary.seconds,
            "outputs": summary.outputs,
            "bytes_of_outputs": summary.size,
        },
        "results": [result_document(result) for result in run.results],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def head_of(run: MatrixRun) -> dict[str, Any]:  # Any: JSON
    """The run without its results, as JSON's values."""
    return {
        field.name: _plain(getattr(run, field.name)) for field in dataclasses.fields(run) if field.name != "results"
    }


def result_document(result: CellResult) -> dict[str, Any]:  # Any: JSON
    """A cell's result as JSON's values, with what follows from it."""
    document: dict[str, Any] = _plain(result)
    document |= {
        "flaky": result.flaky,
        "seconds": result.seconds,
        "failure": _plain(result.failure),
        "reason": _plain(result.reason),
    }
    return document


def run_from_json(text: str | bytes, where: Path) -> MatrixRun:
    """The run that `run_as_json` wrote. Raises UsageError, naming the file and the field, for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(where, f"is no JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise _unreadable(where, 'has no field "format", so it holds no results of a matrix')
    if document["format"] > FORMAT:
        raise UsageError(
            f"results in format {document['format']}; this dibble reads up to {FORMAT}",
            hint="update dibble: a newer one wrote them",
            where=Where(file=where),
        )
    return run_of(document, where)


def run_of(document: Mapping[str, Any], where: Path) -> MatrixRun:  # Any: JSON
    """The run of JSON's values. Raises UsageError that names the field."""
    from pydantic import ValidationError

    try:
        return _adapter().validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise _unreadable(where, f"does not fit: {field}: {first['msg'][:1].lower() + first['msg'][1:]}") from error


def read_run(path: Path) -> MatrixRun:
    """The run of a file, or of `results.json` in a directory. Raises UsageError."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"no {'results of a matrix' if path.is_dir() else 'such file'}",
            hint=f"give the directory of a run of `dibble matrix`, or its {FILE_NAME}",
            where=Where(file=file),
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", hint="give a file that you may read", where=Where(file=file)
        ) from error
    return run_from_json(text, file)


def schema() -> dict[str, Any]:  # Any: JSON
    """The JSON schema of what is read back."""
    return _adapter().json_schema()


def _unreadable(where: Path, what: str) -> UsageError:
    return UsageError(what, hint=f"give a {FILE_NAME} that `dibble matrix` wrote", where=Where(file=where))


@cache
def _adapter() -> TypeAdapter[MatrixRun]:
    from pydantic import TypeAdapter  # takes some 0.1 s to import

    return TypeAdapter(MatrixRun)


def _plain(value: Any) -> Any:  # Any: JSON
    """Values as JSON has them."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_plain(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
