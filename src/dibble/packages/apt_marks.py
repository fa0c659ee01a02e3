"""Which packages came along and which were asked for: apt's extended_states (apt-mark(8))."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dibble.packages.deb822 import Paragraph, paragraphs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.packages.apt_resolve import AptTransaction

STATES = Path("var/lib/apt/extended_states")


def read_automatic(root: Path) -> set[tuple[str, str]]:
    """(name, architecture) of each package that is marked as automatically installed."""
    path = root / STATES
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return set()
    return {
        (paragraph.get("Package"), paragraph.get("Architecture"))
        for paragraph in paragraphs(data, path)
        if paragraph.get("Auto-Installed") == "1"
    }


def marks_after(before: Iterable[tuple[str, str]], transaction: AptTransaction, arch: str) -> set[tuple[str, str]]:
    """The marks when `transaction` has been carried out on a root of architecture `arch`.

    Packages for all architectures count as those of `arch`, as in apt.
    """
    gone = {_split(name, arch) for name in transaction.remove}
    asked = {_split(name, arch) for name in transaction.manual}
    new = {(package.name, arch if package.arch == "all" else package.arch) for package in transaction.install}
    return (set(before) | new) - asked - gone


def write_automatic(root: Path, marks: Iterable[tuple[str, str]]) -> None:
    """Write the marks; a root that has no apt directory and no marks gets no file."""
    path = root / STATES
    rows = sorted(marks)
    if not rows and not path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(marks_text(rows), "utf-8")
    new.chmod(0o644)
    new.rename(path)


def marks_text(marks: Iterable[tuple[str, str]]) -> str:
    """The file that holds these marks."""
    rows = [{"Package": name, "Architecture": arch, "Auto-Installed": "1"} for name, arch in sorted(marks)]
    return "".join(f"{Paragraph(row).text()}\n" for row in rows)


def _split(name: str, arch: str) -> tuple[str, str]:
    stem, _, own = name.partition(":")
    return stem, own or arch
