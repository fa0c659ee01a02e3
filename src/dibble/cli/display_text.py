"""How a build reads: one line an event, and the summary at the end. Shared by all displays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.events import (
    Activity,
    ArtifactWritten,
    BuildFinished,
    BuildStarted,
    Note,
    OutputLine,
    StepCached,
    StepFinished,
    StepStarted,
)
from dibble.wording import bytes_text, counted, joined, seconds_text

if TYPE_CHECKING:
    from dibble.events import Event

TOP_ITEMS = 5
"""So many of the longest items are named at the end."""

SUCCESS = "Build completed successfully"


def amount_text(event: Activity) -> str:
    """How far an activity is: `3 of 185 packages`, `14 MB of 177 MB`; empty when it does not count."""
    if not event.unit and not event.total:
        return ""
    shown = bytes_text if event.unit == "bytes" else str
    unit = "" if event.unit in {"bytes", ""} else f" {event.unit}"
    if event.total and event.done < event.total:
        return f"{shown(event.done)} of {shown(event.total)}{unit}"
    return f"{shown(event.done)}{unit}"


def lines_of(event: Event) -> list[str]:
    """What a plain log says of an event; nothing for progress that goes on. The build's own lines are DIB's."""
    lines: list[str] = []
    match event:
        case BuildStarted():
            lines = [
                f"dibble version {event.version}",
                f"Building elements: {' '.join(event.requested)}",
                f"Expanded element dependencies to: {' '.join(event.elements)}",
            ]
        case StepStarted():
            lines = [f"Running {event.step}" + (f" (element {event.element})" if event.element else "")]
        case StepCached():
            lines = [f"Cached {event.step}"]
        case StepFinished(status=0):
            lines = [f"{event.step} completed: {joined(seconds_text(event.seconds), _new_bytes(event))}"]
        case StepFinished():
            lines = [f"{event.step} failed with status {event.status} after {seconds_text(event.seconds)}"]
        case Activity(finished=True):
            lines = [f"{event.name}: {joined(amount_text(event), seconds_text(event.seconds))}"]
        case OutputLine():
            lines = event.text.splitlines() or [""]
        case Note(level="warning"):
            lines = [f"WARNING: {line}" for line in event.text.splitlines()]
        case Note():
            lines = event.text.splitlines()
        case ArtifactWritten():
            lines = [f"Image file {event.path} created..."]
    return lines


def _new_bytes(event: StepFinished) -> str:
    return bytes_text(event.bytes) if event.bytes else ""


@dataclass(slots=True)
class Summary:
    """What the end of a build tells. Gathers events; `lines` is called with the last."""

    artifacts: list[ArtifactWritten] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        if isinstance(event, ArtifactWritten):
            self.artifacts.append(event)
        elif isinstance(event, StepFinished):
            self.steps.append((event.step, event.seconds))

    def lines(self, event: BuildFinished) -> list[str]:
        """What was written, how long it took and where the time went."""
        lines = [
            f"{artifact.path}: {artifact.format}, {bytes_text(artifact.size)}"
            + (f", {bytes_text(artifact.allocated)} on disk" if artifact.allocated != artifact.size else "")
            for artifact in self.artifacts
        ]
        verb = "built" if event.status == 0 else "stopped"
        lines.append(
            f"{verb} after {seconds_text(event.seconds)}: {counted(event.steps_run, 'step')} run,"
            f" {event.steps_cached} cached"
        )
        longest = sorted(event.timings or self.steps, key=lambda item: -item[1])[:TOP_ITEMS]
        shown = [f"{what} {seconds_text(seconds)}" for what, seconds in longest if seconds >= 0.1]
        if shown:
            lines.append(f"where the time went: {', '.join(shown)}")
        return lines
