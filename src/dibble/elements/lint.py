"""The static rules for elements (contract.md 1.7). Finds; printing and choosing directories is the command's part."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.find import depends_of, provides_of
from dibble.elements.readers.documents import read_document, read_json
from dibble.elements.strange import misplaced, strange
from dibble.errors import ElementError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dibble.elements.find import Catalogue
    from dibble.elements.model import Element

# Rules that `# dib-lint: disable=…` in a file, or `ignore` in tox.ini, can switch off.
EXCLUDABLE = frozenset(
    {
        "executable",
        "indent",
        "sete",
        "setu",
        "setpipefail",
        "dibdebugtrace",
        "safe_sudo",
        "which",
        "tabindent",
        "newline",
        "mddocs",
    }
)
# Phases outside the target, where a careless sudo changes the host.
HOST_PHASES = ("root.d", "extra-data.d", "block-device.d", "finalise.d", "cleanup.d")
# A sudo on the host is meant for the target when it names one of these.
SAFE_SUDO = re.compile(
    r"TARGET_ROOT|IMAGE_BLOCK_DEVICE|TMP_MOUNT_PATH|TMP_IMAGE_PATH|install-packages|^\s*#|# dib-lint: safe_sudo"
)

_DISABLE = re.compile(r"#\s*dib-lint:\s*disable=(.*)")
_SET_E = re.compile(r"\s*set\s+(.*\s)?-[A-Za-z]*e")
_SET_U = re.compile(r"\s*set\s+(.*\s)?-[A-Za-z]*u")
_SET_X = re.compile(r"\s*set\s+(.*\s)?-[A-Za-z]*x")
_SET_PIPEFAIL = re.compile(r"\s*set\s+(.*\s)?-[A-Za-z]*o\s+pipefail")
_EXPORT_OF_OUTPUT = re.compile(r"\bexport\s+\w+=[\"']?\$\((?!\()")
_WHICH = re.compile(r"(^|[\s;&|(`])which ")
_HEREDOC = re.compile(r"<<-?\s*[\"'\\]?(\w+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something against a rule. `rule` is empty where it cannot be switched off.

    `line` counts from 1; what is of a file as a whole stands at its first line, of a directory at none.
    """

    file: Path
    message: str
    line: int | None = 1
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.message}"


@dataclass(slots=True)
class _File:
    """A file under inspection, read once."""

    path: Path
    data: bytes
    executable: bool
    findings: list[Finding]
    disabled: frozenset[str]
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.data.decode("utf-8", "replace").split("\n")
        own = {word for line in self.lines if (match := _DISABLE.search(line)) for word in match.group(1).split()}
        self.disabled = self.disabled | own

    @property
    def shebang(self) -> str:
        return self.lines[0] if self.lines[0].startswith("#!") else ""

    @property
    def is_bash(self) -> bool:
        return "bash" in self.shebang

    @property
    def is_shell(self) -> bool:
        return bool(re.search(r"\b(ba|da)?sh\b", self.shebang))

    def report(self, message: str, line: int | None = 1, rule: str = "") -> None:
        if rule not in self.disabled:
            self.findings.append(Finding(self.path, message, line or 1, rule))

    def has(self, pattern: re.Pattern[str]) -> bool:
        return any(pattern.match(line) for line in self.lines)


def lint(
    elements: Path,
    library: Path | None,
    *,
    ignored_rules: Collection[str] = (),
    skip: Callable[[Path], bool] = lambda _: False,
    python_problems: Callable[[Path], list[str]] = lambda _: [],
) -> list[Finding]:
    """What is against the rules in a directory of elements and in a directory of shell libraries, in path order.

    `skip` says which files do not count (those that git ignores), `python_problems` what is wrong with a Python
    script. Raises ElementError when a directory cannot be read.
    """
    findings: list[Finding] = []
    disabled = frozenset(ignored_rules)
    try:
        for directory in sorted(entry for entry in elements.iterdir() if entry.is_dir()):
            if directory.name != "__pycache__":
                _check_readme(directory, findings)
                _check_entries(directory, skip, findings)
        for path in _files(elements, skip):
            _check_file(path, findings, disabled, python_problems)
        for path in _files(library, skip) if library else ():
            file = _File(path, path.read_bytes(), False, findings, disabled)
            _check_tabs(file)
            _check_newline(file)
    except OSError as error:
        raise ElementError(f"{error.filename} cannot be read: {error.strerror}") from error
    return findings


def lint_element(
    element: Element,
    catalogue: Catalogue,
    *,
    ignored_rules: Collection[str] = (),
    skip: Callable[[Path], bool] = lambda _: False,
    python_problems: Callable[[Path], list[str]] = lambda _: [],
) -> list[Finding]:
    """What is against the rules in one element; also the names in `element-deps` that nothing in `catalogue` has.

    The rest is as in `lint`.
    """
    findings: list[Finding] = []
    try:
        _check_readme(element.path, findings)
        _check_entries(element.path, skip, findings)
        for path in _files(element.path, skip):
            _check_file(path, findings, frozenset(ignored_rules), python_problems)
    except OSError as error:
        raise ElementError(f"{error.filename} cannot be read: {error.strerror}") from error
    try:
        names = [name for name in depends_of(element) if name.name not in catalogue.elements]
        others = catalogue.elements.values() if names else ()
        virtual = {provided.name for other in others for provided in provides_of(other)}
    except ElementError as error:
        return [*findings, Finding(Path(error.where.file or element.path), error.message, error.where.line or 1)]
    findings.extend(
        Finding(name.file, f'no element is or provides "{name.name}"', name.line)
        for name in names
        if name.name not in virtual
    )
    return findings


def _check_readme(directory: Path, findings: list[Finding]) -> None:
    if not (directory / "README.rst").is_file():
        findings.append(Finding(directory, "has no README.rst", None))


def _check_entries(element: Path, skip: Callable[[Path], bool], findings: list[Finding]) -> None:
    """What a build does not take, or takes for something else than it is."""
    for path in sorted(element.iterdir()):
        if path.is_file() and (what := misplaced(path.name)) and not skip(path):
            findings.append(Finding(path, what))
    for path in _names(element):
        is_data = path.is_symlink() and path.parent != element  # a link may lead to what the image has
        if not is_data and (what := strange(path)) and not skip(path):
            findings.append(Finding(path, what))


def _check_file(
    path: Path, findings: list[Finding], disabled: frozenset[str], python_problems: Callable[[Path], list[str]]
) -> None:
    file = _File(path, path.read_bytes(), os.access(path, os.X_OK), findings, disabled)
    _check_any(file)
    _check_format(file)
    if file.is_shell:
        _check_shell(file)
    if file.executable and "python" in file.shebang and path.suffix != ".py":
        for problem in python_problems(path):
            file.report(problem)
    if path.suffix == ".rst" or file.executable:
        _check_tabs(file)
        _check_newline(file)


def _files(directory: Path, skip: Callable[[Path], bool]) -> Iterator[Path]:
    """Regular files below a directory, without what Python leaves behind."""
    for path in _names(directory):
        if path.suffix != ".pyc" and not path.is_symlink() and path.is_file() and not skip(path):
            yield path


def _names(directory: Path) -> Iterator[Path]:
    """All that is below a directory, less directories."""

    def failed(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(directory, onerror=failed):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", ".git"))
        for name in sorted(names):
            yield directory.__class__(folder) / name


def _check_any(file: _File) -> None:
    path = file.path
    if path.suffix == ".md":
        file.report("documentation is written in reStructuredText (.rst)", rule="mddocs")
    is_environment = path.parent.name == "environment.d"
    if file.shebang and not file.executable and not is_environment:
        file.report("starts with #! but is not executable", 1, "executable")
    if path.name.startswith("source-repository-"):
        _check_newline(file, rule="")  # its last line would not be read
    if is_environment:
        if file.executable:
            file.report("environment.d files are sourced and must not be executable")
        for number, line in enumerate(file.lines, start=1):
            if _SET_X.match(line):
                file.report("environment.d files must not set -x", number)
        _check_exports(file)


def _check_newline(file: _File, rule: str = "newline") -> None:
    if file.data and b"\0" not in file.data and not file.data.endswith(b"\n"):
        file.report("does not end with a newline", len(file.lines), rule)


def _check_format(file: _File) -> None:
    path = file.path
    if path.name == "element-deps":
        names = [line.strip() for line in file.lines if line.strip() and not line.strip().startswith("#")]
        if names != sorted(names):
            file.report("element-deps is not sorted")
    try:
        if path.suffix in (".yaml", ".yml"):
            read_document(path)
        elif path.name == "pkg-map" and not file.executable:
            read_json(path)
    except ElementError as error:
        file.report(error.message, error.where.line)


def _check_shell(file: _File) -> None:
    if file.is_bash:
        if file.shebang != "#!/bin/bash":
            file.report(f"starts with {file.shebang}, not #!/bin/bash", 1)
        for rule, pattern, text in (
            ("sete", _SET_E, "set -e"),
            ("setu", _SET_U, "set -u"),
            ("setpipefail", _SET_PIPEFAIL, "set -o pipefail"),
        ):
            if not file.has(pattern):
                file.report(f"does not {text}", rule=rule)
        if b"DIB_DEBUG_TRACE" not in file.data:
            file.report("does not follow DIB_DEBUG_TRACE", rule="dibdebugtrace")
    if file.path.parent.name in HOST_PHASES:
        for number, line in _joined(file.lines):
            if "sudo " in line and not SAFE_SUDO.search(line):
                file.report("sudo outside the target's tree", number, "safe_sudo")
    _check_exports(file)
    for number, line in _commands(file.lines):
        indent = len(line) - len(line.lstrip(" "))
        if indent % 4 and line.strip():
            file.report("is not indented by a multiple of 4 spaces", number, "indent")
        if _WHICH.search(line) and "# dib-lint: which" not in line and not line.lstrip().startswith("#"):
            file.report("which is not everywhere; use type -p", number, "which")


def _check_exports(file: _File) -> None:
    for number, line in enumerate(file.lines, start=1):
        if _EXPORT_OF_OUTPUT.search(line) and not line.lstrip().startswith("#"):
            file.report("export hides the status of $( ); assign first, export on its own line", number)


def _check_tabs(file: _File) -> None:
    for number, line in enumerate(file.lines, start=1):
        if line.lstrip(" ").startswith("\t"):
            file.report("is indented with tabs", number, "tabindent")


def _commands(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines of a shell script with their numbers, without the bodies of here-documents."""
    end = ""
    for number, line in enumerate(lines, start=1):
        if end:
            if line.strip() == end:
                end = ""
            continue
        yield number, line
        started = _HEREDOC.search(line) if "<<<" not in line else None
        end = started.group(1) if started else ""


def _joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, those that a backslash continues taken together."""
    begun = 0
    whole = ""
    for number, line in enumerate(lines, start=1):
        begun = begun or number
        whole += line
        if line.endswith("\\"):
            continue
        yield begun, whole
        begun, whole = 0, ""
    if whole:
        yield begun, whole
