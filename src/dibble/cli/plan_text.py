"""A plan as people read it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dibble.plan.explain import shown_place
from dibble.wording import bytes_text, counted, joined, seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dibble.plan.explain import Reason
    from dibble.plan.plan import Plan, PlannedDisk, PlannedOutput, PlannedPackage, PlannedPart, PlannedStep

_KEY_SHOWN = 12  # characters of a key, enough to tell two apart
_PACKAGES_SHOWN = 8
_BAR = 60  # characters of a drawn disk


def lines(plan: Plan, cwd: Path, *, show_all: bool = False) -> Iterator[str]:
    """The plan, line by line. With `show_all` every package is named."""
    yield f"{plan.name} from {' '.join(plan.requested)} ({plan.arch})"
    yield f"elements: {' '.join(plan.elements)}"
    yield from _target_lines(plan)
    yield ""
    width = max((len(planned.step.id) for planned in plan.steps), default=0)
    told: tuple[Reason, ...] = ()
    for planned in plan.steps:
        yield from _step_lines(planned, width, cwd, show_all, told)
        told = planned.reasons
    for disk in plan.disks:
        yield ""
        yield from _disk_lines(disk)
    for volume in plan.volumes:
        yield ""
        yield f"{volume.kind} {volume.name} on {', '.join(volume.bases)}"
        yield from _part_lines(volume.parts)
    yield ""
    for output in plan.outputs:
        yield _output_line(output)
    yield ""
    yield _sum_line(plan)


def _target_lines(plan: Plan) -> Iterator[str]:
    if plan.target is None:
        return
    yield f"for the environment {plan.target.name} ({plan.target.summary}):"
    for key, value in plan.target.set:
        yield f"  {key}: {value}"
    for key, value in plan.target.overruled:
        yield f"  not {key}: {value}, since you say otherwise"


def _step_lines(planned: PlannedStep, width: int, cwd: Path, show_all: bool, told: tuple[Reason, ...]) -> Iterator[str]:
    """`told` are the reasons of the step before, which are not told again."""
    step = planned.step
    mark = {"cached": "✓", "run": "→", "follows": "↳"}[planned.status]
    doubt = "" if planned.certain else "?"
    facts = joined(
        {"inside": "inside", "outside": "outside", "engine": "engine"}[step.where],
        planned.element,
        "cached" if planned.status == "cached" else "",
        f"{age_text(planned.age_s)} old" if planned.age_s is not None and planned.network else "",
        f"about {seconds_text(planned.seconds)}" if planned.status != "cached" and planned.seconds is not None else "",
        "used the network" if planned.network else "",
    )
    yield f"{mark} {step.id:<{width}}  {planned.key.value[:_KEY_SHOWN]}{doubt:<1}  {facts}"
    for reason in planned.reasons if planned.reasons != told else ():
        yield from reason_lines(reason, cwd)
    if planned.packages is None and planned.status != "cached" and step.where != "engine":
        return
    for action in ("install", "upgrade", "remove"):
        packages = [package for package in planned.packages or () if package.action == action]
        if packages:
            yield from _package_lines(action, packages, planned.status == "cached" and not show_all, show_all)


def reason_lines(reason: Reason, cwd: Path) -> Iterator[str]:
    """A reason with its place, and both sides where there are any."""
    place = shown_place(reason.where.file, cwd)
    if place and reason.where.line:
        place = f"{place}:{reason.where.line}"
    text = reason.text
    if reason.where.file:
        text = text.replace(str(reason.where.file), shown_place(reason.where.file, cwd))
    yield f"    because {text}" + (f" ({place})" if reason.where.line else "")
    if (reason.old or reason.new) and reason.part not in ("tree", "repository", "tools", "version"):
        yield f"      - {reason.old}"
        yield f"      + {reason.new}"


def age_text(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `5 days`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def _package_lines(action: str, packages: list[PlannedPackage], brief: bool, show_all: bool) -> Iterator[str]:
    verb = {"install": "installs", "upgrade": "upgrades", "remove": "removes"}[action]
    missing = sum(package.size for package in packages if not package.held)
    download = f"{bytes_text(missing)} to download" if missing else "nothing to download"
    size = bytes_text(sum(package.size for package in packages))
    amount = f" ({size}, {download})" if action != "remove" else ""
    yield f"    {verb} {counted(len(packages), 'package')}{amount}"
    if brief:
        return
    ordered = packages if show_all else sorted(packages, key=lambda package: -package.size)[:_PACKAGES_SHOWN]
    for package in ordered:
        size = bytes_text(package.size) if package.size else ""
        yield f"      {package.name} {package.version} {package.arch} {size}".rstrip()
    if len(ordered) < len(packages):
        yield f"      and {len(packages) - len(ordered)} more (--all names them)"


def _disk_lines(disk: PlannedDisk) -> Iterator[str]:
    size = bytes_text(disk.size) if disk.size else "as its content needs"
    about = ", sizes as in the last build" if disk.estimated and disk.size else ""
    yield f"disk {disk.name}: {size}, {disk.table if disk.table != 'none' else 'no partition table'}{about}"
    yield from _part_lines(disk.parts)
    for raw in disk.raws:
        place = bytes_text(raw.offset) + (f" of {raw.base}" if raw.base != disk.name else "")
        yield "  " + joined(f"{raw.name}: {raw.file}", f"at {place}", "outside of file systems")


def _part_lines(parts: Sequence[PlannedPart]) -> Iterator[str]:
    """A bar, where all sizes are known, and a line for each."""
    total = sum(part.size or 0 for part in parts)
    if total and all(part.size for part in parts):
        cells = [max(3, round(_BAR * (part.size or 0) / total)) for part in parts]
        yield "  ┌" + "┬".join("─" * width for width in cells) + "┐"
        yield (
            "  │" + "│".join(part.name[:width].center(width) for part, width in zip(parts, cells, strict=True)) + "│"
        )
        yield "  └" + "┴".join("─" * width for width in cells) + "┘"
    for part in parts:
        at = f"at {bytes_text(part.offset)}" if part.offset is not None else ""
        size = bytes_text(part.size) if part.size else "the rest"
        system = f"{part.filesystem} {part.label}".strip()
        yield "  " + joined(f"{part.name}: {size}", at, part.kind, system, f"on {part.mount}" if part.mount else "")


def _output_line(output: PlannedOutput) -> str:
    mark = "✓" if output.cached else "→"
    size = bytes_text(output.size) if output.size else ""
    return f"{mark} {output.file}  " + joined(output.format, size, "cached" if output.cached else "")


def _sum_line(plan: Plan) -> str:
    states = Counter(planned.status for planned in plan.steps)
    parts = [f"{counted(len(plan.steps), 'step')}: {states['cached']} cached, {len(plan.to_run)} to run"]
    if plan.download_bytes:
        parts.append(f"{bytes_text(plan.download_bytes)} of packages to download")
    if plan.seconds is not None:
        parts.append(f"about {seconds_text(plan.seconds)}" if not plan.is_complete else "nothing to do")
    return "; ".join(parts)
