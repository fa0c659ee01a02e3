"""A plan as a graph in the language of Graphviz (graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dibble.plan.plan import Plan, PlannedStep

_COLOURS = {"cached": "#d9ead3", "run": "#f9cb9c", "follows": "#fff2cc"}


def dot(plan: Plan) -> str:
    """A digraph: steps in their order, gathered by phase, then disks and outputs. Colours tell what is cached."""
    out = ["digraph plan {", "  rankdir=TB;", '  node [shape=box, style="filled,rounded", fontname="sans-serif"];']
    phase = ""
    for number, planned in enumerate(plan.steps):
        if planned.step.phase != phase or planned.step.where == "engine":
            if phase:
                out.append("  }")
            phase = planned.step.phase
            out.append(f"  subgraph cluster_{number} {{")
            out.append(f"    label={_quoted(phase if planned.step.where != 'engine' else 'dibble')}; style=dotted;")
        label = "\n".join([planned.step.script or planned.step.phase, _state(planned), planned.key.value[:12]])
        out.append(f"    s{number} [label={_quoted(label)}, fillcolor={_quoted(_COLOURS[planned.status])}];")
    if phase:
        out.append("  }")
    out += [f"  s{number} -> s{number + 1};" for number in range(len(plan.steps) - 1)]
    last = f"s{len(plan.steps) - 1}"
    for number, disk in enumerate(plan.disks):
        parts = [disk.name, disk.table, *(f"{part.name} {part.filesystem} {part.mount}" for part in disk.parts)]
        out.append(f"  d{number} [shape=cylinder, fillcolor=white, label={_quoted(chr(10).join(parts))}];")
        out.append(f"  {last} -> d{number};")
    for number, output in enumerate(plan.outputs):
        colour = _COLOURS["cached" if output.cached else "run"]
        out.append(f"  o{number} [shape=note, fillcolor={_quoted(colour)}, label={_quoted(output.file)}];")
        out.append(f"  {'d0' if plan.disks and output.format != 'tar' else last} -> o{number};")
    return "\n".join([*out, "}"])


def _state(planned: PlannedStep) -> str:
    if planned.status == "cached":
        return "cached"
    return planned.reasons[0].text if planned.reasons else "runs"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
