"""Figures as SVG: lines over the number of workers, and bars of parts. Nothing but text is needed to draw them."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000", "#f0e442")
"""Okabe and Ito's, which people with any colour vision tell apart."""
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 36, 44


def lines(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Points (x, y) of each series joined; x is drawn by its logarithm, y from 0."""
    xs = sorted({x for points in series.values() for x, _ in points})
    highest = max(y for points in series.values() for _, y in points) * 1.05
    first, last = math.log(xs[0]), math.log(xs[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log(x) - first) / ((last - first) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / highest * (HEIGHT - TOP - BOTTOM)

    parts = []
    for step in _steps(highest):
        _, y = at(xs[0], step)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{step:g}", "end"))
    parts += [_text(at(x, 0)[0], HEIGHT - BOTTOM + 16, f"{x:g}", "middle") for x in xs]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, "middle"))
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number]
        places = [at(x, y) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts += _legend(number, name)
    return _whole(f"{title} ({up})", parts, HEIGHT)


def bars(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """One bar a row, of parts that are shares of 1; what is missing stays empty."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    height = TOP + max(26 * len(rows), 18 * len(names)) + 24
    left = 16 + 6 * max(map(len, rows))  # letters of 12 px are some 6 px wide
    width = WIDTH - left - RIGHT
    parts = []
    for number, (label, row) in enumerate(rows.items()):
        y, x = TOP + 26 * number, float(left)
        parts.append(_text(left - 6, y + 14, label, "end"))
        parts.append(f'<path d="M{left} {y}h{width}v18h-{width}z" fill="#f4f4f4"/>')
        for name, share in row.items():
            colour = COLOURS[names.index(name)]
            parts.append(f'<path d="M{x:.1f} {y}h{share * width:.1f}v18h-{share * width:.1f}z" fill="{colour}"/>')
            x += share * width
    for number, name in enumerate(names):
        parts += _legend(number, name)
    parts += [_text(left + share * width, height - 8, f"{share:.0%}", "middle") for share in (0, 0.5, 1)]
    return _whole(title, parts, height)


def _steps(highest: float) -> list[float]:
    """Some five round numbers from 0 on."""
    power = 10 ** math.floor(math.log10(highest / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 6 >= highest)
    return [step * number for number in range(int(highest / step) + 1)]


def _legend(number: int, name: str) -> list[str]:
    y = TOP + 18 * number
    square = f'<path d="M{WIDTH - RIGHT + 14} {y}h12v12h-12z" fill="{COLOURS[number]}"/>'
    return [square, _text(WIDTH - RIGHT + 32, y + 10, name, "start")]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _whole(title: str, parts: Sequence[str], height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#222">'
    )
    ground = f'<path d="M0 0h{WIDTH}v{height}H0z" fill="#fff"/>'
    heading = f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, ground, heading, *parts, "</svg>"]) + "\n"
