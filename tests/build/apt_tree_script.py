"""Runs the apt engine on a root of its own, in namespaces and with a tools view; a program, so that any user can.

    python -m tests.build.apt_tree_script CACHE STEPS

STEPS is a JSON list of [verb, arguments…]; the result, on the standard output, is a JSON list with a value for each.
TREE_ARCH names another architecture than amd64; with TREE_EMULATED, all of its programs are emulated.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.build.debian_trees import differences, in_names, of_root, of_tar

from dibble.errors import DibbleError
from dibble.events import Activity, Events, Note
from dibble.packages.apt import Apt
from dibble.packages.apt_decide import AptSettings
from dibble.packages.apt_marks import STATES
from dibble.packages.apt_resolve import PRINT, AptTransaction, parse_transaction
from dibble.packages.base import BootstrapRequest
from dibble.sandbox.binfmt import enable, is_foreign, known, program
from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.mounts import unmount_all
from dibble.sandbox.process import run
from dibble.sandbox.tools import ToolsTree, host_arch
from dibble.sandbox.workspace import Workspace, tools_view
from dibble.store.places import open_store

if TYPE_CHECKING:
    from dibble.events import Event
    from dibble.sandbox.process import Completed
    from dibble.store.places import Session, Store


ARCH = os.environ.get("TREE_ARCH", "amd64")
_IS_QUICK = is_foreign(ARCH) and "TREE_EMULATED" not in os.environ


class Notes:
    """Keeps what users are told, and the names of activities that have ended."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.activities: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Note):
            self.texts.append(event.text)
        if isinstance(event, Activity) and event.finished:
            self.activities.append(event.name)

    def close(self) -> None: ...


class Driver:
    """One root; each method that a step may name is one verb."""

    def __init__(self, store: Store, session: Session) -> None:
        self._notes = Notes()
        events = Events([self._notes])
        tree = ToolsTree(store.root, events)
        lowers = tree.ensure("core")
        if is_foreign(ARCH):
            emulator = tree.ensure("qemu-user")[0] / "usr/bin" / f"qemu-{known(ARCH).emulator}"
            enable(ARCH, emulator, session.path / "binfmt")
        toolbox = tools_view(store, session, lowers, tree.identity)
        assert toolbox.root is not None
        self._workspace = Workspace(session, toolbox.root, toolbox)
        self._answers = store.answers
        self._base = self._workspace.new_directory("base")
        (self._base / "mnt").mkdir()
        self._merged = self._base / "mnt"
        self.root = self._workspace.target
        settings = AptSettings(
            root=self.root,
            arch=ARCH,
            native=(host_arch(), self._workspace.new_directory("native")) if _IS_QUICK else None,
            packages_dir=store.packages,
            blobs_dir=store.blobs,
            state_dir=store.repositories,
            epoch=int(epoch) if (epoch := os.environ.get("SOURCE_DATE_EPOCH")) else None,
            scratch=self._workspace.new_directory("scratch"),
        )
        self.apt = Apt(settings, toolbox, events)

    def decide(self, request: dict[str, Any]) -> list[str]:
        """What a bootstrap would install, and nothing more."""
        self._transaction = self.apt.bootstrap(_request(request))
        return [f"{package.name} {package.version} {package.arch}" for package in self._transaction.install]

    def bootstrap(self, request: dict[str, Any]) -> list[str]:
        """A new root: its packages as a lower layer, configured through an overlay."""
        names = self.decide(request)
        self.apt.fetch(self._transaction)
        made = self._workspace.new_directory("packages")
        self._merged = made / "mnt"
        self.apt.merge(self._transaction, self._merged)
        self._workspace.mount_tree([made, self._base])
        self._workspace.mount_system_in_target()
        self.apt.configure(self._transaction)
        return names

    def foresee(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """What requests, one after another, will come to in this root, from the bootstrap's sources alone."""
        found = [AptTransaction.from_json(json.loads(json.dumps(self._transaction.as_json())))]
        for request in requests:
            found.append(self.apt.foresee(found, **request))
        return [transaction.as_json() for transaction in found[1:]]

    def known(self, *requests: list[str] | None) -> list[object]:
        """What requests now come to, None for an upgrade, and how often apt was asked for that."""
        before = self._notes.activities.count("resolve")
        found = [self.apt.upgrade() if names is None else self.apt.resolve(names) for names in requests]
        return [[one.as_json() for one in found], self._notes.activities.count("resolve") - before]

    def answers(self, *requests: list[str]) -> list[bool]:
        """Whether apt chooses the same packages from the part of the lists that a request concerns as from all."""
        found = []
        for words in requests:
            ours = self.apt.resolve(words)
            state = self.apt.state
            assert state is not None
            status = self.root / "var/lib/dpkg/status"
            whole = state.run(["apt-get", "install", *PRINT, *words], status, self.root / STATES)
            found.append(parse_transaction(whole.output, {}, ()).install == ours.downloads)
        return found

    def forget(self) -> None:
        """Let apt be asked again."""
        shutil.rmtree(self._answers)

    def sources(self, files: dict[str, str]) -> None:
        """From now on the target's own sources, after some of its files have been written."""
        for name, text in files.items():
            (self.root / name).write_text(text)
        self.apt.use_target_sources()

    def install(self, names: list[str], removed: list[str] | None = None) -> dict[str, Any]:
        return self._apply(self.apt.resolve(names, removed or []))

    def upgrade(self) -> dict[str, Any]:
        return self._apply(self.apt.upgrade())

    def _apply(self, transaction: AptTransaction) -> dict[str, Any]:
        before = len(self._notes.texts)
        self.apt.apply(transaction)
        return {
            "install": [package.name for package in transaction.install],
            "upgrade": [package.name for package in transaction.upgrade],
            "remove": list(transaction.remove),
            "notes": self._notes.texts[before:],
            "all": transaction.as_json(),
        }

    def refused(self, verb: str, *arguments: Any) -> dict[str, str]:
        """The error that a step ends with."""
        try:
            value = getattr(self, verb)(*arguments)
        except DibbleError as error:
            return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        raise AssertionError(f"{verb} came to {value}")

    def repositories(self) -> list[list[str]]:
        """(uri, suite, sha256 of the signed file) of each repository in use."""
        return [[state.uri, state.suite, state.sha256] for state in self.apt.repositories()]

    def ahead(self, names: list[str]) -> None:
        """Fetch in the background what a request will come to after the bootstrap."""
        self.apt.fetch_ahead(lambda: self.apt.foresee([self._transaction], names).downloads)

    def initramfs(self) -> list[object]:
        """The initramfs, and how often modules were chosen for it with our files."""
        before = self._notes.activities.count("modules")
        self.apt.update_initramfs()
        return [self.digests("boot/initrd.img-*"), self._notes.activities.count("modules") - before]

    def depmod(self, *words: str) -> list[object]:
        """Status of depmod with the script over it, and how often it was carried out by us."""
        before = self._notes.activities.count("depmod")
        with self.apt.quick_depmod():
            status, _ = self.run("depmod", *words)
        return [status, self._notes.activities.count("depmod") - before]

    def digests(self, pattern: str) -> dict[str, str]:
        """The sha256 of each file in the root that a pattern fits, and its mode."""
        return {
            str(path.relative_to(self.root)): f"{sha256(path.read_bytes()).hexdigest()} {path.stat().st_mode:o}"
            for path in self.root.glob(pattern)
        }

    def run(self, *argv: str) -> list[object]:
        """Status and output of a program in the root."""
        done: Completed = run(argv, root=self.root, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, check=False)
        return [done.status, done.output]

    def listing(self) -> dict[str, str]:
        """Every path of the root with a digest of what it is."""
        entries = in_names(of_root(self.root))
        return {path: sha256(repr(entry).encode()).hexdigest() for path, entry in entries.items()}

    def programs(self, arch: str) -> list[str]:
        """The files of the root that are programs or libraries for an architecture."""
        head = program(arch)[:20]
        found = []
        for path, entry in of_root(self.root).items():
            if entry.content[:4] == head[:4] and entry.content[4:6] + entry.content[18:20] == head[4:6] + head[18:20]:
                found.append(path)
        return found

    def native_programs(self) -> int:
        """How many programs of the root are this machine's own while its scripts run."""
        with self.apt._quick():
            return len(self.programs(host_arch()))

    def lower(self) -> str:
        """Names all that is in the lower layer of packages: the same name, the same bytes, owners and modes."""
        return repr(hash(tuple(sorted(of_root(self._merged).items()))))

    def compare(self, tar: str, ignored: list[str]) -> list[str]:
        """In what the root differs from the one in an archive."""
        return differences(in_names(of_root(self.root)), in_names(of_tar(Path(tar))), ignored)


def _request(values: dict[str, Any]) -> BootstrapRequest:
    given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    return BootstrapRequest(arch=ARCH, **given)


def _steps(cache: Path, steps: list[list[Any]]) -> list[object]:
    store = open_store(cache)
    values: list[object] = []
    with store.session() as session:
        driver = Driver(store, session)
        try:
            for verb, *arguments in steps:
                values.append(getattr(driver, verb)(*arguments))
        finally:
            driver.apt.close()
            unmount_all(session.path)
    return values


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    print(json.dumps(run_in_namespace(lambda: _steps(Path(sys.argv[1]), given))))
