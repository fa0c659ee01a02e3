"""APT: what to install is decided by apt, how it gets into the root by us where that is safe (design.md 5)."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import PackageError
from dibble.packages import apt_in_target
from dibble.packages.apt_apply import essentials, place, reason_against, replace_lost, stages
from dibble.packages.apt_decide import AptDecisions, AptSettings
from dibble.packages.apt_files import PackageFiles
from dibble.packages.apt_marks import marks_after, read_automatic, write_automatic
from dibble.packages.apt_merge import MergedTree, needs_aliases
from dibble.packages.apt_resolve import (
    AptTransaction,
)
from dibble.packages.base import BootstrapRequest
from dibble.packages.bootstrap_words import bootstrap_words
from dibble.packages.depmod import Depmod
from dibble.packages.dpkg_configure import ENVIRONMENT, FIRST, Target, no_services, progress_of, temporary_awk
from dibble.packages.dpkg_database import (
    Unpacked,
    activate_file_triggers,
    create_database,
    enter,
    honour_diversions,
    packages_in,
    read_status,
    state_of,
)
from dibble.packages.dpkg_initramfs import INITRAMFS_PACKAGES, PutOff, quick_environment
from dibble.packages.dpkg_initramfs import command as initramfs_command
from dibble.packages.dpkg_scan import is_risky
from dibble.packages.dracut_install import DracutInstall
from dibble.packages.native_tools import CLEANS_LIBRARIES, INITRAMFS, SCRIPTS, Allowed, NativeTools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from dibble.events import Events
    from dibble.packages.base import Package, Transaction
    from dibble.sandbox.toolbox import Toolbox


class Apt(AptDecisions):
    """One target root. Use from one thread at a time, inside the namespace."""

    def __init__(self, settings: AptSettings, toolbox: Toolbox, events: Events) -> None:
        super().__init__(settings, toolbox, events)
        self._initramfs = PutOff()
        self._files = PackageFiles(settings, events, toolbox.root)
        self._native = self._native_tools() if settings.native else None
        started = self._started if self._native else None
        self._depmod = Depmod(self._files.modules, events, started)
        self._dracut = DracutInstall(self._files.modules, events, started)

    @staticmethod
    def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
        """`apt --suite …` as a request. Raises UsageError."""
        parser = bootstrap_words("apt")
        parser.add_argument("--suite", required=True)
        parser.add_argument("--arch", required=True)
        parser.add_argument("--mirror", action="append", required=True)
        parser.add_argument("--components", default="main")
        parser.add_argument("--variant", default="minbase")
        parser.add_argument("--include", default="")
        parser.add_argument("--exclude", default="")
        parser.add_argument("--keyring", action="append", default=[])
        parser.add_argument("--source", action="append", default=[])
        parser.add_argument("--unsigned", action="store_true")
        options = parser.parse_args(list(words))
        return BootstrapRequest(
            suite=options.suite,
            arch=options.arch,
            mirrors=tuple(options.mirror),
            components=_listed(options.components),
            variant=options.variant or "minbase",
            include=_listed(options.include),
            exclude=_listed(options.exclude),
            keyrings=tuple(Path(name) for name in options.keyring),
            unsigned=options.unsigned,
            sources=tuple(options.source),
        )

    def bootstrap(self, request: BootstrapRequest) -> AptTransaction:
        """As `AptDecisions.bootstrap`; files are then fetched from any of the request's mirrors."""
        self._files.mirrors = request.mirrors
        return super().bootstrap(request)

    def _native_tools(self) -> NativeTools:
        arch, place = self._settings.native or ("", self._settings.root)
        settings = replace(self._settings, arch=arch, root=place / "none", native=None, scratch=None)
        return NativeTools(Apt(settings, self._toolbox, self._events), arch, place, self._events)

    def _quick(self, allowed: Allowed = SCRIPTS) -> AbstractContextManager[None]:
        """Let programs of a foreign root be those of this machine while the block runs."""
        if self._native is None:
            return nullcontext()
        state = self.state
        return self._native.around(self._settings.root, state.sources if state else None, allowed)

    def _started(self, place: Path, program: str) -> list[str] | None:
        state = self.state
        sources = state.sources if state else None
        return self._native.started(self._settings.root, sources, place, program) if self._native else None

    def unpacked(self, packages: Sequence[Package]) -> list[Unpacked]:
        """Packages that were fetched, as they lie in the store."""
        return self._files.unpacked(packages)

    # --- fetching

    def fetch(self, transaction: Transaction) -> None:
        """Download what the store lacks and unpack each package there, once ever."""
        self._files.fetch(transaction.downloads)

    def fetch_ahead(self, decide: Callable[[], Sequence[Package]]) -> None:
        """Do what `fetch` does in the background, for the packages that `decide` comes to there.

        Its errors are dropped: they are met again when the packages are needed.
        """
        self._files.begin(decide)

    def close(self) -> None:
        """End what goes on in the background."""
        self._files.close()

    # --- a new root

    def merge(self, transaction: Transaction, directory: Path) -> None:
        """Put the packages of a bootstrap into an empty directory, as a lower layer: hard links and dpkg's database.

        Nothing may ever run on, or write to, the directory itself. Packages that are not provably safe to place are
        left to `configure`.
        """
        packages = self._files.unpacked(transaction.install)
        packages.sort(key=lambda unpacked: unpacked.package.name != "base-files")  # it ships the links of a merged /usr
        with self._events.activity("merge") as activity:
            tree = MergedTree(directory)
            old_mask = os.umask(0o022)
            try:
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(0o755)
                if needs_aliases(packages):
                    tree.make_aliases(self._settings.arch, packages[0].root.stat().st_mtime_ns)
                merged = []
                for done, unpacked in enumerate(packages, 1):
                    if not is_risky(unpacked.script("preinst")) and tree.add(unpacked):
                        merged.append(unpacked)
                    activity.progress(done, len(packages), "packages")
                create_database(directory)
                enter(directory, merged, link=True)
                tree.finish()
            finally:
                os.umask(old_mask)

    def configure(self, transaction: Transaction) -> None:
        """Run the scripts of a merged root: preinsts, basic packages, what merge left out, all others, triggers.

        The initramfs is put off. Raises PackageError for a script that fails.
        """
        root = self._settings.root
        present = {package.name for package in packages_in(read_status(root))}
        packages = self._files.unpacked(transaction.install)
        left_out = [unpacked for unpacked in packages if unpacked.package.name not in present]
        placed = [unpacked for unpacked in packages if unpacked.package.name in present]
        placed.sort(key=lambda unpacked: unpacked.package.name != "base-passwd")  # its preinst makes the users
        with ExitStack() as stack:
            target = self._target(len(packages), stack, None)
            stack.enter_context(no_services(root))
            stack.enter_context(self._initramfs.around(root))
            stack.enter_context(self._depmod.around(root))
            with self._events.activity("preinst"), temporary_awk(root):
                self._preinsts(target, placed)
            honour_diversions(root, placed)
            early = [CLEANS_LIBRARIES] if self._native is not None and CLEANS_LIBRARIES in present else []
            if early:
                target.dpkg("--force-depends", "--configure", *early)
            stack.enter_context(self._quick())
            first = [[name for name in names if name in present] for names in FIRST]
            for names in filter(None, first):
                target.dpkg("--force-depends", "--configure", *names)
            if basic := [name for name in essentials(placed) if name not in chain(early, *first)]:
                target.dpkg("--configure", "--no-triggers", *basic, later=True)
            if left_out:
                target.dpkg("--configure", "--no-triggers", "-a", later=True)
                apt_in_target.unpack(target, self._files.debs([unpacked.package for unpacked in left_out]))
            target.dpkg("--configure", "--no-triggers", "-a")
            with self._events.activity("triggers"):
                target.dpkg("--triggers-only", "-a")
        self._check_configured()

    def _preinsts(self, target: Target, placed: Sequence[Unpacked]) -> None:
        ran = []
        with self._quick():
            for unpacked in placed:
                if target.preinst(unpacked):
                    if self._native is None:
                        replace_lost(target.root, unpacked)
                    ran.append(unpacked)
        if self._native is not None:  # until now other files were to be seen in the places of some
            for unpacked in ran:
                replace_lost(target.root, unpacked)

    # --- a root that is a system

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in a root that is a system already; `on_line` gets what scripts and tools print.

        Files are placed natively where that is provably what dpkg would do, else by the target's own apt or dpkg. The
        initramfs is put off where possible. Raises PackageError for a script that fails.
        """
        known = transaction if isinstance(transaction, AptTransaction) else _as_apt(transaction)
        root = self._settings.root
        before = read_automatic(root)
        if known:
            self.fetch(known)
            packages = self._files.unpacked(known.install)
            reason = " ".join(self._hooks) or reason_against(root, known, packages, read_status(root))
            with ExitStack() as stack:
                target = self._target(len(known.downloads) + len(known.local), stack, on_line)
                stack.enter_context(no_services(root))
                if reason:
                    self._events.note(f"the target's own tools install: {reason}")
                    self._apply_in_target(target, known)
                else:
                    self._apply_natively(target, packages)
            self._check_configured()
        if known.marks:
            write_automatic(root, marks_after(before, known, self._settings.arch))

    def _apply_natively(self, target: Target, packages: Sequence[Unpacked]) -> None:
        old_mask = os.umask(0o022)
        try:
            for group in stages(packages):
                with self._events.activity("place"), self._quick():
                    enter(target.root, group, link=False)
                    for unpacked in group:
                        target.preinst(unpacked)
                        place(target.root, unpacked)
                        self._depmod.placed(target.root, unpacked.root)
                    honour_diversions(target.root, group)
                    activate_file_triggers(target.root, (path for unpacked in group for path in unpacked.paths()))
                with self._initramfs.around(target.root), self._depmod.around(target.root), self._quick():
                    target.dpkg("--configure", "--no-triggers", "-a")
            with (
                self._events.activity("triggers"),
                self._initramfs.around(target.root),
                self._depmod.around(target.root),
                self._quick(),
            ):
                target.dpkg("--triggers-only", "-a")
        finally:
            os.umask(old_mask)

    def _apply_in_target(self, target: Target, transaction: AptTransaction) -> None:
        debs = self._files.debs(transaction.downloads)
        with ExitStack() as stack:
            if not {package.name for package in transaction.downloads} & set(INITRAMFS_PACKAGES):
                # dpkg cannot replace a file that something is mounted on
                stack.enter_context(self._initramfs.around(target.root))
            if self._of_target and (target.root / "usr/bin/apt-get").exists():
                shown = self._toolbox.path(target.root)
                apt_in_target.apt_install(target, transaction, self._current(), debs, shown)
            else:
                apt_in_target.dpkg_install(target, transaction, debs)

    def _check_configured(self) -> None:
        bad = [
            p.get("Package")
            for p in read_status(self._settings.root)
            if state_of(p) not in ("installed", "config-files", "not-installed")
        ]
        if bad:
            raise PackageError(f"left unconfigured by dpkg: {', '.join(bad)}")

    def _target(self, total: int, stack: ExitStack, on_line: Callable[[str], None] | None) -> Target:
        """The target, whose output goes to `on_line`, or else is counted as an activity and sent as events."""
        from dibble.events import OutputLine

        activity = stack.enter_context(self._events.activity("configure"))
        seen: set[str] = set()

        def hear(line: str) -> None:
            if name := progress_of(line):
                seen.add(name)
                activity.progress(len(seen), total, "packages")
            if on_line:
                on_line(line)
            else:
                self._events.send(OutputLine(text=line))

        version = next(
            (p.get("Version") for p in read_status(self._settings.root) if p.get("Package") == "dpkg"), "1.22"
        )
        return Target(self._settings.root, hear, version, environment=self._environment())

    def _environment(self) -> dict[str, str]:
        epoch = self._settings.epoch
        return dict(ENVIRONMENT) if epoch is None else {**ENVIRONMENT, "SOURCE_DATE_EPOCH": str(epoch)}

    # --- afterwards

    @property
    def initramfs_pending(self) -> bool:
        """Whether a package asked for an initramfs that has not been made yet."""
        return self._initramfs.asked

    def update_initramfs(self, on_line: Callable[[str], None] | None = None) -> None:
        """Make the initramfs of every kernel, once. Raises PackageError when the target's program fails."""
        argv = initramfs_command(self._settings.root)
        if argv is None:
            return
        self._make_initramfs(argv, on_line, self._quick(INITRAMFS))
        if self._native is not None and (strangers := self._strangers()):
            self._events.note(f"the initramfs is made again, emulated: {strangers} got into it", "warning")
            self._make_initramfs(["update-initramfs", "-u", "-k", "all"], on_line, nullcontext())
        self._initramfs.asked = False

    def _make_initramfs(
        self, argv: list[str], on_line: Callable[[str], None] | None, quickly: AbstractContextManager[None]
    ) -> None:
        with ExitStack() as stack:
            stack.enter_context(self._events.activity("initramfs"))
            stack.enter_context(quickly)
            stack.enter_context(self._depmod.around(self._settings.root))
            stack.enter_context(self._dracut.around(self._settings.root))
            quick = stack.enter_context(quick_environment(self._settings.root, in_memory=self._settings.in_memory))
            environment = {**self._environment(), **quick}
            target = Target(self._settings.root, on_line or (lambda _line: None), environment=environment)
            done = target.run(argv)
        if done.status:
            last = "".join(f"\n    {line}" for line in done.output.splitlines()[-8:])
            raise PackageError(f"{' '.join(argv)} ended with status {done.status}{last}")

    def _strangers(self) -> str:
        """A program of this machine's architecture in an initramfs of a foreign root; "" when there is none."""
        from dibble.packages.initramfs_content import foreign_program

        paths = sorted((self._settings.root / "boot").glob("initrd.img-*"))
        return next((found for path in paths if (found := foreign_program(path, self._settings.arch))), "")

    def quick_depmod(self) -> AbstractContextManager[None]:
        """While the block runs, depmod in the root takes what was done ahead of its work; the same comes out."""
        return self._depmod.around(self._settings.root)


def _as_apt(transaction: Transaction) -> AptTransaction:
    """A transaction without word on what was asked for: everything was."""
    names = tuple(package.name for package in transaction.install)
    return AptTransaction(transaction.install, transaction.upgrade, transaction.remove, names)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())
