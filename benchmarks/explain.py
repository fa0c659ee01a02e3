"""Where the time of a build goes, told by its own events (`dibble build --json`)."""

from __future__ import annotations

import json
from typing import Any


def explained(output: str) -> str:
    """A table in Markdown: each step with its share, below it the activities that ran in it, and what ran beside."""
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    began = events[0]["time"]
    whole = next(event["seconds"] for event in events if event["event"] == "BuildFinished")
    steps = _steps(events)
    rows = []
    for name, start, end in steps:
        rows.append((name, end - start, start - began, ""))
        rows += _activities(events, start, end, began)
    last = max((end for _, _, end in steps), default=began)
    finished = next(event["time"] for event in events if event["event"] == "BuildFinished")
    rows.append(("outputs", finished - last, last - began, ""))
    rows += _activities(events, last, finished, began)
    lines = ["| stage | s | share | from s |", "|---|---|---|---|"]
    small = 0.0
    for name, seconds, at, note in rows:
        if seconds < 0.15:
            small += 0.0 if name.startswith("· ") else seconds
            continue
        lines.append(f"| {name}{note} | {seconds:.1f} | {100 * seconds / whole:.0f} % | {at:.1f} |")
    lines.append(f"| steps below 0.15 s, together | {small:.1f} | {100 * small / whole:.0f} % | |")
    first = steps[0][1] - began if steps else 0.0
    lines.append(f"| before the first step | {first:.1f} | {100 * first / whole:.0f} % | 0.0 |")
    return "\n".join([*lines, f"| the whole build | {whole:.1f} | 100 % | |"])


def _steps(events: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(id, begin, end) of each step that ran."""
    begun: dict[str, float] = {}
    found = []
    for event in events:
        if event["event"] == "StepStarted":
            begun[event["step"]] = event["time"]
        elif event["event"] == "StepFinished" and event["step"] in begun:
            found.append((event["step"], begun[event["step"]], event["time"]))
    return found


def _activities(
    events: list[dict[str, Any]], start: float, end: float, began: float
) -> list[tuple[str, float, float, str]]:
    """The activities that ended in a stretch of time; those that had begun before it ran beside earlier ones."""
    rows = []
    for event in events:
        if event["event"] == "Activity" and event["finished"] and start <= event["time"] <= end:
            at = event["time"] - event["seconds"]
            rows.append((f"· {event['name']}", event["seconds"], at - began, " (began earlier)" if at < start else ""))
    return rows
