"""What scripts can ask for through `dib-engine`, carried out on the target that the current step has mounted."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dibble.elements import engine_verbs
from dibble.errors import DibbleError, FetchError, UsageError
from dibble.events import OutputLine
from dibble.packages.base import request_data
from dibble.packages.bootstrap_words import bootstrap_request
from dibble.store.layers import Input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dibble.elements.model import Element
    from dibble.events import Events
    from dibble.packages.apt import Apt
    from dibble.packages.apt_resolve import AptTransaction
    from dibble.packages.base import BootstrapRequest, Package, TargetManager, Transaction
    from dibble.run.control import Call
    from dibble.sandbox.workspace import Workspace

HTTP_NOT_FOUND_STATUS = 44  # contract.md 4.2, cache-url


class Engine:
    """Answers calls for one build. The executor says with `begin` and `end` which step is running.

    `managers` are APT and the others by their names; a root is the first other one's that knows it for its own, else
    APT's.
    `put_packages_below` mounts a directory of merged packages under the running step's upper directory; it belongs to
    the executor, which owns the overlay. `packages` are those of the command line.
    """

    def __init__(
        self,
        managers: tuple[Apt, Mapping[str, TargetManager]],
        elements: tuple[Element, ...],
        workspace: Workspace,
        events: Events,
        put_packages_below: Callable[[Transaction, Callable[[Path], None]], None],
        *,
        packages: tuple[str, ...] = (),
    ) -> None:
        self.apt, self._others = managers
        self._elements = elements
        self._workspace = workspace
        self._events = events
        self._put_packages_below = put_packages_below
        self._packages_asked_for = packages
        self._step = ""
        self._inside = False
        self.inputs: dict[tuple[str, str], Input] = {}
        self.requests: list[dict[str, Any]] = []
        """What the running step has asked for, with what it came to (`History.requests`)."""
        self.reached: set[str] = set()
        """The servers that were asked for the running step's downloads."""
        self.unreachable = ""
        """One of them that did not deliver."""
        self.rehearsal: list[tuple[str, list[str]]] | None = None
        """While a step is only rehearsed: what it asks for."""
        self._verbs: dict[str, Callable[[Call], int]] = {
            "bootstrap": self._bootstrap,
            "install": self._install,
            "remove": self._remove,
            "upgrade": self._upgrade,
            "package-installs": self._package_installs,
            "squash-package-installs": lambda call: self._answer(call, engine_verbs.squash_package_installs),
            "pkg-map": lambda call: self._answer(call, engine_verbs.pkg_map),
            "svc-map": lambda call: self._answer(call, engine_verbs.svc_map),
            "merge-svc-map": lambda call: self._answer(call, engine_verbs.merge_svc_map),
            "fetch": self._fetch,
            "fetched": self._fetched,
            "fetch-image": self._fetch_image,
            "read-image": self._read_image,
        }

    def begin(self, step: str, *, inside: bool) -> None:
        self._step, self._inside = step, inside
        self.inputs = {}
        self.requests = []
        self.reached = set()
        self.unreachable = ""

    def handle(self, call: Call) -> int:
        if self.rehearsal is not None:
            return self._rehearse(call, self.rehearsal)
        verb = self._verbs.get(call.verb)
        if verb is None:
            call.errors(f'dib-engine: unknown verb "{call.verb}"; known are: {", ".join(sorted(self._verbs))}')
            return 2
        return verb(call)

    def install(self, names: Sequence[str], on_line: Callable[[str], None], remove: Sequence[str] = ()) -> None:
        """Install and remove packages in the mounted target; its /proc, /dev and /sys must be there."""
        manager = self._of_target()
        manager.use_target_sources()
        transaction = manager.resolve(tuple(names), tuple(remove))
        self._note(request_data(transaction, "install" if names else "remove", names or remove), manager)
        manager.apply(transaction, on_line)

    def _of_target(self) -> Apt | TargetManager:
        """The package manager of the mounted target."""
        target = self._workspace.target
        return next((manager for manager in self._others.values() if manager.owns(target)), self.apt)

    # --- before a build

    def _rehearse(self, call: Call, asked: list[tuple[str, list[str]]]) -> int:
        """Note what would change packages, without doing it; answer what only asks, as far as there is an answer."""
        arguments = list(call.arguments)
        if call.verb in ("bootstrap", "install", "remove", "upgrade"):
            asked.append((call.verb, arguments))
            return 0
        if call.verb == "package-installs":
            # The file with what all elements want is not there yet; the elements themselves are.
            call = replace(call, arguments=tuple(word for word in arguments if not word.startswith("/")))
        elif call.verb not in ("pkg-map", "svc-map"):
            return 1
        return self._verbs[call.verb](call)

    def foreseen(
        self, verb: str, words: Sequence[str], earlier: Sequence[AptTransaction], bootstrap: Sequence[str]
    ) -> Transaction:
        """What a request will come to after `earlier` ones, of which that with the words `bootstrap` began the root.

        The repositories that it was resolved from are then in `inputs`.
        """
        manager = self._manager(words if verb == "bootstrap" else bootstrap or ("apt",))
        if verb != "bootstrap" and bootstrap:
            manager.use_bootstrap_sources(bootstrap_request(bootstrap))
        transaction: Transaction
        if verb == "bootstrap":
            transaction = manager.bootstrap(bootstrap_request(words))
        elif verb == "upgrade":
            transaction = manager.foresee(earlier, upgrade=True)
        elif verb == "remove":
            transaction = manager.foresee(earlier, (), words)
        else:
            transaction = manager.foresee(earlier, words)
        self._note({}, manager)
        return transaction

    def _manager(self, bootstrap: Sequence[str]) -> Apt | TargetManager:
        """The package manager that a root begun with these words has."""
        return self._others.get(bootstrap[0], self.apt) if bootstrap else self.apt

    # --- verbs

    def _line(self, text: str) -> None:
        self._events.send(OutputLine(text=text, step=self._step))

    def _bootstrap(self, call: Call) -> int:
        request = bootstrap_request(call.arguments)
        begun = self._others.get(call.arguments[0])
        count = self._begun_by(begun, request, call) if begun else self._begun_by_apt(request, call)
        call.output(f"{count} packages of {request.suite} are in place")
        return 0

    def _begun_by_apt(self, request: BootstrapRequest, call: Call) -> int:
        transaction = self.apt.bootstrap(request)
        self._note(request_data(transaction, "bootstrap", call.arguments))
        self._look_ahead(transaction, call)
        self.apt.fetch(transaction)
        self._put_packages_below(transaction, lambda directory: self.apt.merge(transaction, directory))
        self._workspace.mount_system_in_target()
        try:
            self.apt.configure(transaction)
        finally:
            self._workspace.unmount_target()
        return len(transaction.install)

    def _begun_by(self, manager: TargetManager, request: BootstrapRequest, call: Call) -> int:
        transaction = manager.bootstrap(request)
        self._note(request_data(transaction, "bootstrap", call.arguments), manager)
        manager.fetch(transaction)
        for name in ("proc", "dev", "sys"):
            (self._workspace.target / name).mkdir(exist_ok=True)
        with self._system_in_target():
            manager.apply(transaction, self._line)
        return len(transaction.install)

    def _install(self, call: Call) -> int:
        if not call.arguments:
            call.output("Nothing to install")
            return 0
        return self._packages(call, install=call.arguments)

    def _remove(self, call: Call) -> int:
        if not call.arguments:
            call.output("Nothing to remove")
            return 0
        return self._packages(call, remove=call.arguments)

    def _packages(self, call: Call, install: Sequence[str] = (), remove: Sequence[str] = ()) -> int:
        with self._system_in_target():
            self.install(install, call.output, remove)
        return 0

    def _upgrade(self, call: Call) -> int:
        with self._system_in_target():
            manager = self._of_target()
            manager.use_target_sources()
            transaction = manager.upgrade()
            self._note(request_data(transaction, "upgrade", ()), manager)
            manager.apply(transaction, call.output)
        return 0

    def _package_installs(self, call: Call) -> int:
        request = engine_verbs.package_installs(call.arguments, self._context(call))
        for line in request.messages:
            call.output(line)
        if request.install or request.remove:
            return self._packages(call, request.install, request.remove)
        return 0

    def _answer(
        self, call: Call, verb: Callable[[Sequence[str], engine_verbs.Context], engine_verbs.VerbResult]
    ) -> int:
        result = verb(call.arguments, self._context(call))
        for line in result.stdout:
            call.output(line)
        for line in result.stderr:
            call.errors(line)
        return result.status

    def _fetch(self, call: Call) -> int:
        """`fetch [-f] URL DEST`: a download for `cache-url`; DEST is seen from the caller."""
        from dibble.errors import FileGone
        from dibble.packages.origin import download

        arguments = [word for word in call.arguments if word != "-f"]
        if len(arguments) != 2:
            raise UsageError("dib-engine fetch: give a URL and a destination", hint="dib-engine fetch [-f] URL DEST")
        url, destination = arguments
        target = self._file_of(call, destination)
        if server := urlsplit(url).netloc:
            self.reached.add(server)
        try:
            with target.open("w+b") as file:
                token = download(url, file)
        except FileGone as error:
            call.errors(str(error))
            return HTTP_NOT_FOUND_STATUS
        except FetchError as error:
            self.unreachable = server
            call.errors(str(error))
            return 1
        self._note_origin("url", url, token, asked=True)
        return 0

    def _fetched(self, call: Call) -> int:
        """`fetched url URL` or `fetched git LOCATION REF [COMMIT]`: what a script gets without the engine's help.

        The step runs again when that has changed at its origin. Without COMMIT the origin is asked; offline, what it
        said last counts.
        """
        from dibble.packages.origin import origin_tokens

        offline = bool(call.environment.get("DIB_OFFLINE"))
        match call.arguments:
            case ("url", name):
                kind, token = "url", ""
            case ("git", location, ref, *commit) if len(commit) < 2:
                kind, name, token = "git", f"{location} {ref}", "".join(commit)
            case _:
                raise UsageError(
                    "dib-engine fetched: wrong arguments",
                    hint="dib-engine fetched url URL | dib-engine fetched git LOCATION REF [COMMIT]",
                )
        if not token:
            places = self._workspace.session.store.repositories
            found = origin_tokens([(kind, name)], places, offline=offline, max_age_s=0)[kind, name]
            if found is None:
                return 0  # nobody can tell whether it changes
            token = found
        self._note_origin(kind, name, token, asked=not offline)
        return 0

    def _fetch_image(self, call: Call) -> int:
        """`fetch-image … DIRECTORY`: a distribution's image, checked by `packages/cloud_image.py`; prints its path."""
        from dibble.packages.cloud_image import CloudImages, put_in_place, wanted_image

        wanted = wanted_image(call.arguments)
        if server := urlsplit(wanted.location).netloc:
            self.reached.add(server)
        images = CloudImages(
            self._workspace.session.store,
            self._workspace.new_directory("keys"),
            self._workspace.toolbox,
            self._events,
            offline=bool(call.environment.get("DIB_OFFLINE")),
            file_of=lambda name: self._file_of(call, name),
        )
        name, blob, sums = images.fetch(wanted)
        put_in_place(blob, self._file_of(call, wanted.destination) / name)
        if token := images.small.tokens[sums]:
            self._note_origin("url", sums, token, asked=True)
        call.output(f"{wanted.destination}/{name}")
        return 0

    def _file_of(self, call: Call, name: str) -> Path:
        """The place of a file that the caller sees by this name."""
        root = self._workspace.target if self._inside else self._workspace.view
        return root / str(Path(call.cwd, name)).lstrip("/")

    def _read_image(self, call: Call) -> int:
        """`read-image IMAGE ARCHIVE`: an archive of the system in a disk image; both are files of the caller."""
        from dibble.read.image import archive_image

        if len(call.arguments) != 2:
            raise UsageError("dib-engine read-image: give an image and an archive", hint="read-image IMAGE ARCHIVE")
        image, archive = (self._file_of(call, word) for word in call.arguments)
        if not image.is_file():
            raise UsageError(f"there is no image {call.arguments[0]}")
        scratch = self._workspace.new_directory("image")
        for point, what in archive_image(image, archive, self._workspace.toolbox, scratch).items():
            call.output(f"{point}: {what}")
        return 0

    # --- support

    def _look_ahead(self, bootstrap: AptTransaction, call: Call) -> None:
        """Let the packages that later phases will want be fetched and unpacked while the first ones are configured.

        Those that scripts ask for by themselves are not known. An upgrade from the sources of the bootstrap brings
        nothing new. Each request is foreseen as it will be made, so that its answer will serve (`apt_answers`).
        """
        earlier = [bootstrap]

        def decide(names: tuple[str, ...]) -> Sequence[Package]:
            transaction = self.apt.foresee(earlier, names)
            earlier.append(transaction)
            return transaction.downloads

        for names in self._asked_for_later(call):
            self.apt.fetch_ahead(functools.partial(decide, names))

    def _asked_for_later(self, call: Call) -> Iterator[tuple[str, ...]]:
        """The packages of each later request that is known, in the order of the build."""
        for phase in ("pre-install.d", "install.d", "", "post-install.d"):
            names: tuple[str, ...] = ()
            if phase:
                with contextlib.suppress(DibbleError):  # whoever asks in earnest is told
                    names = engine_verbs.package_installs(["--phase", phase], self._context(call)).install
            else:
                names = tuple(self._packages_asked_for)
            if names:
                yield names

    def _context(self, call: Call) -> engine_verbs.Context:
        return engine_verbs.Context(self._elements, call.environment, self._workspace.target)

    @contextlib.contextmanager
    def _system_in_target(self) -> Iterator[None]:
        """The target's /proc, /dev and /sys, for the time of a request when the step has not mounted them."""
        if (self._workspace.target / "proc" / "self").exists():
            yield
            return
        self._workspace.mount_system_in_target()
        try:
            yield
        finally:
            self._workspace.unmount_target()

    def _note_origin(self, kind: str, name: str, token: str, *, asked: bool) -> None:
        """Note what the step's result depends on; `asked` says that the origin has just said so."""
        from dibble.packages.origin import note_origin

        self.inputs[kind, name] = Input(kind, name, token)
        if asked:
            note_origin(kind, name, token, self._workspace.session.store.repositories)

    def _note(self, request: dict[str, Any], manager: Apt | TargetManager | None = None) -> None:
        """Note what was asked for, and the repositories that the answer depends on."""
        self.requests.append(request)
        manager = manager or self.apt
        for state in manager.repositories():
            self.inputs[state.uri, state.suite] = Input(
                manager.kind, f"{state.uri} {state.suite}".strip(), state.sha256
            )
