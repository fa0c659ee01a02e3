"""dpkg's database, read and written without dpkg: packages that are put in place but not yet configured.

A package is entered as "install ok unpacked". Its conffiles lie at their final places already and carry their final
md5: at configuration dpkg looks for `FILE.dpkg-new`, finds none and leaves them alone, so there is no prompt and no
rename.

Source: dpkg 1.22: lib/dpkg/fields.c, lib/dpkg/dump.c, lib/dpkg/triglib.c, src/main/configure.c; deb-triggers(5),
dpkg's doc/spec/triggers.txt and dpkg-query(1) for the names of info files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import PackageError, Where
from dibble.packages.base import Package
from dibble.packages.deb822 import Paragraph, paragraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DATABASE = Path("var/lib/dpkg")
PRESENT = ("unpacked", "half-configured", "triggers-awaited", "triggers-pending", "installed", "half-installed")
_EMPTY_FILES = {
    "diversions": 0o644,
    "lock": 0o640,
    "lock-frontend": 0o640,
    "triggers/Lock": 0o600,
    "triggers/Unincorp": 0o644,
}
_FOLDERS = ("info", "updates", "triggers", "parts", "alternatives")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A package in the store: `root/` its files, `control/` its control files, `list` its paths as dpkg keeps them."""

    package: Package
    entry: Path

    @property
    def root(self) -> Path:
        return self.entry / "root"

    def control(self) -> Paragraph:
        """The control file's only paragraph. Raises PackageError when there is none."""
        path = self.entry / "control/control"
        for paragraph in paragraphs(path.read_bytes(), path):
            return paragraph
        raise PackageError(f"{self.package.name} {self.package.version} has an empty control file", where=Where(path))

    def script(self, name: str) -> bytes:
        """The text of a maintainer script; empty when there is none."""
        try:
            return (self.entry / "control" / name).read_bytes()
        except FileNotFoundError:
            return b""

    def paths(self) -> list[bytes]:
        """All paths, absolute, in the archive's order; the root is `/.`."""
        return (self.entry / "list").read_bytes().splitlines()

    def conffiles(self) -> list[bytes]:
        """Paths of configuration files that the package ships (not those it wants removed), absolute."""
        return [path for path, shipped in self.all_conffiles() if shipped]

    def all_conffiles(self) -> list[tuple[bytes, bool]]:
        """(absolute path, whether it is shipped and not to be removed) of each conffile (deb-conffiles(5))."""
        lines = [line.strip() for line in self.script("conffiles").splitlines() if line.strip()]
        return [(line, True) if line.startswith(b"/") else (line.split(None, 1)[-1], False) for line in lines]


def info_name(control: Paragraph) -> str:
    """The stem of a package's files in info/, and its name in triggers: with architecture if co-installable."""
    name = control.get("Package")
    return f"{name}:{control.get('Architecture')}" if control.get("Multi-Arch") == "same" else name


def read_status(root: Path) -> list[Paragraph]:
    """All paragraphs of the status file in `root`; none when there is no database."""
    path = root / DATABASE / "status"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(paragraphs(data, path))


def state_of(paragraph: Paragraph) -> str:
    """The third word of the Status field, such as `installed`."""
    return paragraph.get("Status").split()[-1] if paragraph.get("Status") else ""


def packages_in(status: Iterable[Paragraph]) -> list[Package]:
    """The packages whose files are in the root, in the order of the status file."""
    return [
        Package(paragraph.get("Package"), paragraph.get("Version"), paragraph.get("Architecture"))
        for paragraph in status
        if state_of(paragraph) in PRESENT
    ]


def create_database(root: Path) -> None:
    """Make an empty database."""
    base = root / DATABASE
    base.mkdir(parents=True, exist_ok=True)
    for folder in _FOLDERS:
        (base / folder).mkdir(exist_ok=True)
    for name, mode in _EMPTY_FILES.items():
        (base / name).touch()
        (base / name).chmod(mode)
    (base / "info/format").write_text("1\n")
    (base / "status").touch()


def enter(root: Path, packages: Sequence[Unpacked], *, link: bool) -> None:
    """Enter packages, whose files are in place, into the database of `root` as unpacked.

    A paragraph of the same package and architecture is replaced. The status file comes last and is renamed into place:
    after a crash the packages are not there. With `link` the info files are hard links into the store, which only a
    root that is the lower layer of an overlay may have.
    """
    base = root / DATABASE
    with locked(root):
        old = read_status(root)
        new: dict[tuple[str, str], str] = {}
        named: dict[str, list[str]] = {}
        by_file: list[str] = []
        for unpacked in packages:
            control = unpacked.control()
            name = info_name(control)
            _write_info(unpacked, base / "info", name, link=link)
            new[control.get("Package"), control.get("Architecture")] = _status_paragraph(unpacked, control).text()
            for trigger, suffix in interests(unpacked.script("triggers")):
                if trigger.startswith("/"):
                    by_file.append(f"{trigger} {name}{suffix}\n")
                else:
                    named.setdefault(trigger, []).append(f"{name}{suffix}\n")
        _add_triggers(base / "triggers", by_file, named)
        texts = [p.text() for p in old if (p.get("Package"), p.get("Architecture")) not in new]
        texts += [new[key] for key in sorted(new)]
        _replace(base / "status", ("\n".join(texts) + "\n").encode("utf-8", "surrogateescape"))


def interests(triggers: bytes) -> Iterator[tuple[str, str]]:
    """(trigger, "" or "/noawait") for each interest in a package's `triggers` file (deb-triggers(5))."""
    for line in triggers.decode("utf-8", "surrogateescape").splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2 and words[0].startswith("interest"):
            yield words[1], "/noawait" if words[0].endswith("-noawait") else ""


def activate_file_triggers(root: Path, paths: Iterable[bytes]) -> None:
    """Note the triggers of installed packages that new `paths` (absolute) touch, as dpkg does while it unpacks.

    dpkg takes them up from `Unincorp` when it next runs. The awaiting package "-" means that nobody waits.
    """
    base = root / DATABASE / "triggers"
    try:
        lines = (base / "File").read_bytes().splitlines()
    except FileNotFoundError:
        return
    watched = {line.rsplit(b" ", 1)[0] for line in lines if b" " in line}
    hit: set[bytes] = set()
    for path in paths:
        part = path
        while len(part) > 1:
            if part in watched:
                hit.add(part)
            part = part.rpartition(b"/")[0]
    if not hit:
        return
    with locked(root):
        pending = (base / "Unincorp").read_bytes() if (base / "Unincorp").exists() else b""
        _replace(base / "Unincorp", pending + b"".join(trigger + b" -\n" for trigger in sorted(hit)))


def diversions(root: Path) -> list[tuple[bytes, bytes, str]]:
    """(path, where it is diverted to, the package that it is not diverted for or ":") for each diversion."""
    try:
        lines = (root / DATABASE / "diversions").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [(a, b, c.decode()) for a, b, c in zip(lines[::3], lines[1::3], lines[2::3], strict=False)]


def honour_diversions(root: Path, packages: Sequence[Unpacked]) -> None:
    """Move files of `packages` that are diverted to where dpkg would have unpacked them.

    For packages whose files were in place before a preinst registered the diversion.
    """
    found = diversions(root)
    if not found:
        return
    for unpacked in packages:
        own = set(unpacked.paths())
        for path, elsewhere, package in found:
            if path in own and package != unpacked.package.name:
                source = root / os.fsdecode(path.lstrip(b"/"))
                if source.is_symlink() or source.is_file():
                    source.rename(root / os.fsdecode(elsewhere.lstrip(b"/")))


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold dpkg's own lock (fcntl(2), as dpkg does). Raises PackageError when a dpkg is at work in `root`."""
    descriptor = os.open(root / DATABASE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PackageError(
                "another process holds the lock of the target's dpkg",
                hint="does a hook leave apt or dpkg running in the background?",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _status_paragraph(unpacked: Unpacked, control: Paragraph) -> Paragraph:
    fields = dict(control.fields)
    first = {"Package": fields.pop("Package"), "Status": "install ok unpacked"}
    fields.pop("Conffiles", None)
    lines = []
    for path, shipped in unpacked.all_conffiles():
        value = "newconffile remove-on-upgrade"  # as dpkg enters it, for ever
        if shipped:
            file = unpacked.root / os.fsdecode(path.lstrip(b"/"))
            value = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        lines.append(f"\n {path.decode('utf-8', 'surrogateescape')} {value}")
    if lines:
        fields["Conffiles"] = "".join(lines)
    return Paragraph({**first, **fields})


def _write_info(unpacked: Unpacked, info: Path, name: str, *, link: bool) -> None:
    for stale in _stale_info(info, name):
        stale.unlink()
    files = [(unpacked.entry / "list", info / f"{name}.list")]
    with os.scandir(unpacked.entry / "control") as entries:
        files += [(Path(entry.path), info / f"{name}.{entry.name}") for entry in entries if entry.name != "control"]
    for source, target in files:
        if link:
            try:
                os.link(source, target)
                continue
            except OSError:  # EMLINK, EXDEV: a copy is as good
                pass
        shutil.copy2(source, target)


def _stale_info(info: Path, name: str) -> list[Path]:
    known = (
        "list",
        "md5sums",
        "preinst",
        "postinst",
        "prerm",
        "postrm",
        "config",
        "templates",
        "conffiles",
        "triggers",
    )
    return [path for path in (info / f"{name}.{suffix}" for suffix in (*known, "shlibs", "symbols")) if path.exists()]


def _add_triggers(folder: Path, by_file: list[str], named: dict[str, list[str]]) -> None:
    for name, lines in (("File", by_file), *named.items()):
        path = folder / name
        old = path.read_text("utf-8", "surrogateescape").splitlines(keepends=True) if path.exists() else []
        if merged := list(dict.fromkeys((*old, *lines))):
            _replace(path, "".join(merged).encode("utf-8", "surrogateescape"))


def _replace(path: Path, data: bytes) -> None:
    """As dpkg does: write FILE-new, rename it."""
    new = path.with_name(path.name + "-new")
    new.write_bytes(data)
    new.chmod(0o644)
    new.rename(path)
