"""Numbers for people. Known everywhere."""

from __future__ import annotations


def seconds_text(seconds: float) -> str:
    """`0.4 s`, `12.3 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def bytes_text(count: int) -> str:
    """`512 B`, `14 MB`, `2.1 GB`: units of 1000, three digits at most."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
