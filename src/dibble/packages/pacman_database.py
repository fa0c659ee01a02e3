"""pacman's databases: of repositories, an archive of NAME-VERSION/desc; of a system, a directory for each package.

A `desc` is sections, `%NAME%` and lines up to an empty one; those of both kinds are mostly the same.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any

from dibble.errors import PackageError
from dibble.packages.base import Package

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

LOCAL = "var/lib/pacman/local"
_ZSTD = b"\x28\xb5\x2f\xfd"
_OF_REPOSITORIES = ("CHECKDEPENDS", "CSIZE", "FILENAME", "ISIZE", "MAKEDEPENDS", "MD5SUM", "PGPSIG", "SHA256SUM")
_VERSION = "9\n"  # of the layout of a system's database


def sections(text: str) -> dict[str, list[str]]:
    """Name → lines of each section."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if not line:
            lines = None
        elif lines is not None:
            lines.append(line)
        elif line.startswith("%") and line.endswith("%"):
            lines = found.setdefault(line.strip("%"), [])
    return found


def descriptions(file: Path, wanted: Collection[str]) -> dict[str, str]:
    """NAME-VERSION → `desc` of those packages in a repository's database. Raises PackageError for a damaged one."""
    try:
        return {place: text for place, text in _entries(file) if place in wanted}
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise PackageError(f"the database of a repository is damaged: {error}", hint="name another mirror") from error


def _entries(file: Path) -> Iterator[tuple[str, str]]:
    with file.open("rb") as data:
        packed: Any = data
        mode: Any = "r|*"
        if data.read(len(_ZSTD)) == _ZSTD:
            import zstandard

            packed, mode = zstandard.ZstdDecompressor().stream_reader(data), "r|"
        data.seek(0)
        with tarfile.open(fileobj=packed, mode=mode) as archive:
            for member in archive:
                place, _, name = member.name.removeprefix("./").partition("/")
                content = archive.extractfile(member) if name == "desc" else None
                if content is not None:
                    yield place, content.read().decode("utf-8", "replace")


def installed(root: Path) -> list[Package]:
    """The packages of a system, sorted by name."""
    found = []
    for file in (root / LOCAL).glob("*/desc"):
        known = sections(file.read_text("utf-8", "replace"))
        name, version, arch = (next(iter(known.get(key, ())), "") for key in ("NAME", "VERSION", "ARCH"))
        if name:
            found.append(Package(name, version, arch))
    return sorted(found, key=lambda package: package.name)


def automatic(root: Path) -> set[str]:
    """The packages of a system that are there only because others need them."""
    texts = (file.read_text("utf-8", "replace") for file in (root / LOCAL).glob("*/desc"))
    return {known["NAME"][0] for known in map(sections, texts) if known.get("REASON") == ["1"] and "NAME" in known}


def write_local(place: Path, packages: Mapping[str, str], files: Sequence[Path], asked: Collection[str]) -> None:
    """Write the database of a system that has `packages` (name → version), as `files` of repositories describe them.

    Those in `asked` were asked for by name.
    """
    wanted = {f"{name}-{version}": name for name, version in packages.items()}
    found: dict[str, str] = {}
    for file in files:
        found |= descriptions(file, wanted.keys() - found.keys())
    place.mkdir(parents=True)
    (place / "ALPM_DB_VERSION").write_text(_VERSION)
    for directory, name in wanted.items():
        known = sections(found.get(directory, ""))
        kept = {key: lines for key, lines in known.items() if key not in _OF_REPOSITORIES}
        kept |= {"NAME": [name], "VERSION": [packages[name]]}
        if name not in asked:
            kept["REASON"] = ["1"]
        (place / directory).mkdir()
        texts = ((key, "".join(f"{line}\n" for line in lines)) for key, lines in kept.items())
        (place / directory / "desc").write_text("".join(f"%{key}%\n{text}\n" for key, text in texts))
        (place / directory / "files").write_text("%FILES%\n\n")


def set_times(root: Path, epoch: int, packages: Collection[tuple[str, str]]) -> None:
    """Let packages, by name and version, have been installed at a moment (seconds since 1970)."""
    for name, version in packages:
        file = root / LOCAL / f"{name}-{version}/desc"
        lines = file.read_text("utf-8", "surrogateescape").split("\n")
        if "%INSTALLDATE%" in lines[:-1]:
            lines[lines.index("%INSTALLDATE%") + 1] = str(epoch)
            file.write_text("\n".join(lines), "utf-8", "surrogateescape")
