"""The disks of a plan as a drawing (SVG 1.1): partitions at the bottom, on them the volumes, each on its bases; below a
disk what lies in it outside of file systems."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from dibble.wording import bytes_text, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.plan.plan import Plan, PlannedDisk, PlannedPart, PlannedVolume

_WIDTH = 960
_NARROWEST = 110
"""Pixels of a box that still hold its words."""
_BOX, _GAP, _MARGIN, _TITLE = 62, 34, 20, 22
_LETTER = 6.7
"""Pixels of a letter, about, at 11 px sans-serif; longer words are cut, and whole in the tooltip."""
_COLOURS = {"raw": "#f4cccc", "disk": "#d9e2ef", "volume": "#fff2cc", "filesystem": "#d9ead3"}


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float


def svg(plan: Plan) -> str:
    """A complete SVG document with every disk, volume, file system and mount point of the plan."""
    drawing = _Drawing()
    for disk in plan.disks:
        drawing.add_disk(disk, plan.volumes)
    return drawing.document(f"{plan.name} ({plan.arch})")


class _Drawing:
    def __init__(self) -> None:
        self._out: list[str] = []
        self._boxes: dict[str, _Box] = {}
        self._drawn: set[str] = set()
        self._y = float(_MARGIN)
        self._right = float(_WIDTH)

    def add_disk(self, disk: PlannedDisk, volumes: Sequence[PlannedVolume]) -> None:
        """A disk below the volumes that stand on it; one on several disks is drawn with the last of them."""
        rows: list[PlannedVolume] = []
        known = {*self._boxes, *(part.name for part in disk.parts)}
        for volume in volumes:
            if volume.name not in self._drawn and known.issuperset(volume.bases):
                rows.append(volume)
                known.update(part.name for part in volume.parts)
        self._drawn.update(volume.name for volume in rows)
        bottom = self._y + len(rows) * (_TITLE + _BOX + _GAP)
        size = bytes_text(disk.size) if disk.size else "as large as its content needs"
        table = disk.table if disk.table != "none" else "no partition table"
        self._text(_MARGIN, bottom + 14, f"disk {disk.name}: {size}, {table}", bold=True)
        self._row(disk.parts, _MARGIN, bottom + _TITLE, _WIDTH - 2 * _MARGIN, "disk")
        for number, volume in enumerate(rows):
            self._volume(volume, bottom - (number + 1) * (_TITLE + _BOX + _GAP))
        self._y = bottom + _TITLE + _BOX
        if disk.raws:
            self._raws(disk)
        self._y += _MARGIN

    def document(self, title: str) -> str:
        width, height = round(self._right + _MARGIN), round(self._y)
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            ' font-family="sans-serif" font-size="11">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *self._out,
            "</svg>",
        ])  # fmt: skip

    def _raws(self, disk: PlannedDisk) -> None:
        """Files at fixed places, in a row below the disk, each under a line to where it begins; they are small."""
        y, width = self._y + _GAP, (_WIDTH - 2 * _MARGIN) / max(len(disk.raws), 4)
        sizes = {part.name: part.size for part in disk.parts}
        for number, raw in enumerate(disk.raws):
            x = _MARGIN + number * width
            base = self._boxes.get(raw.base) or _Box(_MARGIN, self._y - _BOX, _WIDTH - 2 * _MARGIN)
            whole = sizes.get(raw.base) or disk.size or 0
            at = base.x + (base.width * min(raw.offset / whole, 1.0) if whole else 0.0)
            self._out.append(f'<path d="M{x + 8:.1f} {y:.1f} L{at:.1f} {self._y:.1f}" stroke="#a00" fill="none"/>')
            self._box(_Box(x, y, width), [raw.name, raw.file, f"at {bytes_text(raw.offset)}"], "raw")
        self._y = y + _BOX

    def _volume(self, volume: PlannedVolume, y: float) -> None:
        bases = [self._boxes[base] for base in volume.bases]
        left = min(box.x for box in bases)
        right = max(box.x + box.width for box in bases)
        for box in bases:
            middle = box.x + box.width / 2
            self._out.append(
                f'<path d="M{middle:.1f} {box.y:.1f} V{y + _TITLE + _BOX:.1f}" stroke="#555" fill="none"/>'
            )
        self._text(left, y + 14, f"{volume.kind} {volume.name}", bold=True)
        self._row(volume.parts, left, y + _TITLE, right - left, "volume")

    def _row(self, parts: Sequence[PlannedPart], x: float, y: float, width: float, kind: str) -> None:
        for part, own in zip(parts, _widths(parts, width), strict=True):
            self._boxes[part.name] = _Box(x, y, own)
            size = bytes_text(part.size) if part.size else "the rest"
            words = [part.name, joined(size, part.kind), f"{part.filesystem} {part.label}".strip(), part.mount]
            self._box(self._boxes[part.name], words, "filesystem" if part.filesystem else kind)
            x += own

    def _box(self, box: _Box, words: Sequence[str], kind: str) -> None:
        shown = "\n".join(word for word in words if word)
        self._out += [
            f"<g><title>{escape(shown)}</title>",
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{_BOX}"'
            f' fill="{_COLOURS[kind]}" stroke="#333"/>',
        ]
        for number, line in enumerate(shown.splitlines()):
            self._text(box.x + 5, box.y + 14 + 14 * number, line[: int((box.width - 8) / _LETTER)], bold=number == 0)
        self._out.append("</g>")
        self._right = max(self._right, box.x + box.width)

    def _text(self, x: float, y: float, words: str, *, bold: bool = False) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self._out.append(f'<text x="{x:.1f}" y="{y:.1f}"{weight}>{escape(words)}</text>')


def _widths(parts: Sequence[PlannedPart], width: float) -> list[float]:
    """In proportion to the sizes, but each wide enough for its words; the row may become wider than `width`."""
    spare = max(0.0, width - _NARROWEST * len(parts))
    total = sum(part.size or 0 for part in parts)
    return [_NARROWEST + (spare * (part.size or 0) / total if total else spare / len(parts)) for part in parts]
