"""rpm's database in a root: where it lies, the settings that rpm is given for it, and how it is left in an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dibble.packages.base import Package
from dibble.packages.kernel_scripts import SCRIPTS_FIRST

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.packages.rpm_keys import Keyring
    from dibble.sandbox.toolbox import Toolbox

PLACES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
"""Where it lies: today's place (Fedora since 36, openSUSE), and that of RHEL 9 and older."""
_FILES = {"rpmdb.sqlite": "sqlite", "Packages.db": "ndb"}
"""File → the kind of database, as rpm's macro `_db_backend` calls it; openSUSE has ndb."""
ENVIRONMENT = {"SYSTEMD_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_CLOSE = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=DELETE")
for statement, values in json.loads(sys.argv[2]):
    with connection:
        connection.execute(statement, values)
connection.close()
"""
_MACROS = {
    "_netsharedpath": "/proc:/sys:/dev",  # mounted while we work
    "_pkgverify_level": "all",
    "_install_script_path": f"{SCRIPTS_FIRST}:/sbin:/bin:/usr/sbin:/usr/bin:/usr/X11R6/bin",
    "__transaction_unshare": "%{nil}",  # makes mounts of its own, and warns when there is another root
}


def database_of(root: Path) -> str | None:
    """Where the packages of a root are recorded, as a path inside it; None where it has no RPM ones."""
    return next((f"/{place}" for place in PLACES for file in _FILES if (root / place / file).is_file()), None)


def uses_zypper(root: Path) -> bool:
    """Whether a root with RPM packages is zypper's to manage: it has its settings (SUSE's systems), or itself."""
    return (root / "etc/zypp").is_dir() or (root / "usr/bin/zypper").exists()


class RpmDatabase:
    """The database of one root, which may not be there yet: then it will be of the kind `backend`."""

    def __init__(self, root: Path, toolbox: Toolbox, epoch: int | None, backend: str = "sqlite") -> None:
        self.root = root
        self._toolbox = toolbox
        self._epoch = epoch
        self._new_backend = backend

    @property
    def place(self) -> str:
        """Its path inside the root."""
        return database_of(self.root) or f"/{PLACES[0]}"

    @property
    def is_there(self) -> bool:
        return database_of(self.root) is not None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of what writes into it: times in it are the build's epoch."""
        return dict(ENVIRONMENT) if self._epoch is None else {**ENVIRONMENT, "SOURCE_DATE_EPOCH": str(self._epoch)}

    def home(self, directory: Path) -> Path:
        """Make `directory` a home with rpm's settings: for rpm 4.20, and for older ones (`--tools=host`)."""
        settings = {**_MACROS, "_dbpath": self.place, "_db_backend": self._backend()}
        text = "".join(f"%{name} {value}\n" for name, value in settings.items())
        for file in (directory / ".config/rpm/macros", directory / ".rpmmacros"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return directory

    def add_keys(self, keyring: Keyring) -> None:
        """Let rpm trust these."""
        for file in keyring.files:
            self._rpm("rpmkeys", "--import", self._toolbox.path(file), env=self.environment)

    def keys(self) -> list[str]:
        """The keys that it trusts, as texts."""
        if not self.is_there:
            return []
        output = self._rpm("rpm", "-q", "gpg-pubkey", "--queryformat", "%{DESCRIPTION}\\n", check=False)
        end = "-----END PGP PUBLIC KEY BLOCK-----"
        blocks = output.split(end)[:-1]
        return [f"{block[block.find('-----BEGIN') :]}{end}\n" for block in blocks]

    def installed(self) -> list[Package]:
        """The packages of the root, sorted by name."""
        if not self.is_there:
            return []
        output = self.query("%{NAME}\t%{EVR}\t%{ARCH}\n")
        rows = [line.split("\t") for line in output.splitlines() if line.count("\t") == 2]
        return sorted((Package(name, version, arch) for name, version, arch in rows), key=lambda package: package.name)

    def query(self, form: str) -> str:
        """What rpm prints of all packages in this form (rpm-queryformat(7))."""
        return self._rpm("rpm", "-qa", "--queryformat", form)

    def settle(self) -> None:
        """Move it to where the new root's own rpm looks for it."""
        done = self._toolbox.run(
            ["chroot", self._toolbox.path(self.root), "rpm", "--eval", "%{_dbpath}"], env=ENVIRONMENT, check=False
        )
        last = done.output.strip().splitlines()[-1] if done.status == 0 and done.output.strip() else ""
        wanted = self.root / last.lstrip("/") if last else None
        current = self.root / PLACES[0]
        if wanted is None or wanted.resolve() == current.resolve() or self.place != f"/{PLACES[0]}":
            return
        wanted.mkdir(parents=True, exist_ok=True)
        for file in list(current.iterdir()):
            file.rename(wanted / file.name)
        current.rmdir()

    def close(self) -> None:
        """Leave it as one file where it is SQLite's: its journals differ from build to build."""
        for place in PLACES:
            close_sqlite(self.root / place / "rpmdb.sqlite", self._toolbox)

    def _backend(self) -> str:
        place = self.root / self.place.lstrip("/")
        return next((kind for file, kind in _FILES.items() if (place / file).is_file()), self._new_backend)

    def _rpm(self, program: str, *words: str, env: dict[str, str] | None = None, check: bool = True) -> str:
        options = ["--root", self._toolbox.path(self.root), "--dbpath", self.place]
        options += ["--define", f"_db_backend {self._backend()}"]
        return self._toolbox.run([program, *options, *words], env=env, check=check).output


def close_sqlite(file: Path, toolbox: Toolbox, *statements: tuple[str, tuple[int, ...]]) -> None:
    """Leave a database of SQLite's, where there is one, as a single file, with `statements` carried out.

    The tools' library does it: which one has written last stands in the file (SQLite's "Database File Format", offset
    96 of the header), and this machine's may be another on the next machine.
    """
    if file.is_file():
        toolbox.run(["python3", "-I", "-B", "-c", _CLOSE, toolbox.path(file), json.dumps(statements)])
