"""The plan of a build: every step with its key, whether the store has it and, if not, why; outputs and disks.

It is made without building anything, and the build carries out exactly these steps. What a step will leave can only be
known once it has run: keys behind a step that runs are those for the case that its result is new (`certain` is false),
and a step may turn out not to be needed after all, when the steps before it leave the tree as it was.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from dibble.plan.explain import Reason
    from dibble.plan.step import Key, Step
    from dibble.recipe.model import Target

Status = Literal["cached", "run", "follows"]
"""`cached`: its layer is there. `run`: it runs, for the reasons given. `follows`: it runs unless the steps before it
turn out to change nothing."""


@dataclass(frozen=True, slots=True)
class PlannedPackage:
    """`size` in bytes is that of the file to download, which is `held` when it is in the store already."""

    name: str
    version: str
    arch: str
    size: int
    action: Literal["install", "upgrade", "remove"]
    held: bool


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """`layer` is the layer that is taken, empty for a step that runs. `seconds` is what it took the last time it ran.

    `network` are the servers that it reached, or reached the last time; `age_s` the seconds since the layer was made.
    `packages` is None where it is not known what the step will ask for.
    """

    step: Step
    element: str
    key: Key
    certain: bool
    status: Status
    layer: str = ""
    reasons: tuple[Reason, ...] = ()
    seconds: float | None = None
    bytes: int | None = None
    network: tuple[str, ...] = ()
    age_s: float | None = None
    packages: tuple[PlannedPackage, ...] | None = ()


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """`seconds` is what all outputs of the last build with the same formats took together; sizes in bytes."""

    file: str
    format: str
    cached: bool
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A partition or file system on a disk; `offset` and `size` in bytes, None while the content is not known."""

    name: str
    kind: str
    offset: int | None
    size: int | None
    filesystem: str = ""
    label: str = ""
    mount: str = ""


@dataclass(frozen=True, slots=True)
class PlannedRaw:
    """A file of the tree outside of file systems, `offset` bytes into the partition or disk `base`."""

    name: str
    base: str
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class PlannedDisk:
    """`estimated`: sizes follow the content of an earlier build, as this one's is not known yet. Of `raws`, those that
    stand on the disk itself come first, each by its offset."""

    name: str
    table: str
    size: int | None
    parts: tuple[PlannedPart, ...]
    estimated: bool
    raws: tuple[PlannedRaw, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedVolume:
    """What stands on partitions, disks and other volumes, and gives devices: LVM, a RAID. `kind` is for people."""

    name: str
    kind: str
    bases: tuple[str, ...]
    parts: tuple[PlannedPart, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it, in the order in which it is done. `output_seconds` is an estimate from earlier builds.

    Of the volumes, each comes after those that it stands on.
    """

    name: str
    arch: str
    elements: tuple[str, ...]
    requested: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    outputs: tuple[PlannedOutput, ...]
    disks: tuple[PlannedDisk, ...] = ()
    output_seconds: float | None = None
    target: Target | None = None
    volumes: tuple[PlannedVolume, ...] = ()

    @property
    def to_run(self) -> tuple[PlannedStep, ...]:
        return tuple(planned for planned in self.steps if planned.status != "cached")

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to be done but to place the outputs."""
        return not self.to_run and all(output.cached for output in self.outputs)

    @property
    def download_bytes(self) -> int:
        """Bytes of packages that the store does not hold yet, each once."""
        wanted = {
            (package.name, package.version, package.arch): package.size
            for planned in self.to_run
            for package in planned.packages or ()
            if package.action != "remove" and not package.held
        }
        return sum(wanted.values())

    @property
    def seconds(self) -> float | None:
        """How long the build will take, by what its steps and outputs took before; None when too little is known."""
        times = [planned.seconds for planned in self.to_run]
        if not all(output.cached for output in self.outputs):
            times.append(self.output_seconds)
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None

    def find(self, step: str) -> PlannedStep | None:
        return next((planned for planned in self.steps if planned.step.id == step), None)


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON data."""
    return {
        "name": plan.name,
        "arch": plan.arch,
        "requested": list(plan.requested),
        "elements": list(plan.elements),
        "environment": asdict(plan.target) if plan.target else None,
        "steps": [_step_data(planned) for planned in plan.steps],
        "disks": [asdict(disk) for disk in plan.disks],
        "volumes": [asdict(volume) for volume in plan.volumes],
        "outputs": [asdict(output) for output in plan.outputs],
        "steps_to_run": len(plan.to_run),
        "download_bytes": plan.download_bytes,
        "seconds": plan.seconds,
    }


def _step_data(planned: PlannedStep) -> dict[str, Any]:
    step = planned.step
    return {
        "step": step.id,
        "phase": step.phase,
        "script": step.script,
        "element": planned.element,
        "where": step.where,
        "key": planned.key.value,
        "key_is_certain": planned.certain,
        "status": planned.status,
        "layer": planned.layer,
        "reasons": [_reason_data(reason) for reason in planned.reasons],
        "seconds": planned.seconds,
        "bytes": planned.bytes,
        "network": list(planned.network),
        "age_s": planned.age_s,
        "packages": None if planned.packages is None else [asdict(package) for package in planned.packages],
    }


def _reason_data(reason: Reason) -> Mapping[str, Any]:
    where = reason.where
    return {
        "part": reason.part,
        "text": reason.text,
        "file": str(where.file) if where.file else None,
        "line": where.line,
        "old": reason.old,
        "new": reason.new,
    }
