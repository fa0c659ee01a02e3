"""A matrix file with what builds of stand-ins need, so that a matrix written for real mirrors runs without these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_PATHS = ("recipe", "tests")


def elements_in(data: Any) -> Iterator[str]:
    """Every element that the hosts and targets of a matrix name."""
    for axis, values in data.get("axes", {}).items():
        for value in values:
            own = value.get("build", value) if isinstance(value, dict) else {"elements": value}
            if axis in ("host", "distribution", "elements", "variant"):
                yield from _listed(own.get("elements", []))


def with_mirrors(data: Any, folder: Path, variables_of: Callable[[str], Mapping[str, str]]) -> dict[str, Any]:
    """The matrix of the file in `folder`, its values with the variables of their elements, its paths absolute.

    Variables that the file sets itself stay as they are.
    """
    found = dict(data)
    for key in _PATHS:
        if key in found:
            found[key] = str((folder / found[key]).resolve())
    settings = dict(found.get("settings", {}))
    if "elements-path" in settings:
        settings["elements-path"] = [str((folder / path).resolve()) for path in _listed(settings["elements-path"])]
        found["settings"] = settings
    found["axes"] = {
        axis: [_value(axis, value, variables_of) for value in values] for axis, values in data.get("axes", {}).items()
    }
    return found


def _value(axis: str, value: Any, variables_of: Callable[[str], Mapping[str, str]]) -> Any:
    if isinstance(value, dict) and "build" in value:
        return {**value, "build": _value("elements", value["build"], variables_of)}
    if not isinstance(value, dict):
        if axis not in ("distribution", "elements"):
            return value
        value = {"name": "-".join(_listed(value)), "elements": value}
    variables: dict[str, str] = {}
    for element in _listed(value.get("elements", [])):
        variables |= variables_of(element)
    own = {**variables, **value.get("environment", {})}
    return {**value, "environment": own} if own else value


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else str(value).split()
