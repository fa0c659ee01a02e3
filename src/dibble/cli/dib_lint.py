"""`dib-lint`: checks the elements below the current directory (contract.md 1.7)."""

from __future__ import annotations

import argparse
import configparser
import os
import shutil
import sys
from pathlib import Path

from dibble.elements.lint import EXCLUDABLE, lint
from dibble.errors import DibbleError, UsageError
from dibble.sandbox.process import host_environment, run


def main(argv: list[str] | None = None) -> int:
    """Print what is against the rules and `*** FAIL`, or `PASS`; the exit status is 1 or 0."""
    parser = argparse.ArgumentParser(
        prog="dib-lint",
        description="Check elements. ELEMENTS_DIR and LIB_DIR name the directories, "
        "by default diskimage_builder/elements and diskimage_builder/lib, or elements and lib.",
        epilog="A line `# dib-lint: disable=RULE RULE` switches rules off for a file, the key `ignore` of [dib-lint] "
        f"in tox.ini for all. Rules: {' '.join(sorted(EXCLUDABLE))}.",
    )
    parser.parse_args(argv)
    try:
        findings = lint(
            _directory("ELEMENTS_DIR", "elements"),
            _library(),
            ignored_rules=ignored_rules(),
            skip=IgnoredByGit(),
            python_problems=python_problems,
        )
    except DibbleError as error:
        print(error, file=sys.stderr)
        print("*** FAIL")
        return 1
    for finding in findings:
        rule = f" [{finding.rule}]" if finding.rule else ""
        print(f"ERROR: {finding}{rule}")
    print("*** FAIL" if findings else "PASS")
    return 1 if findings else 0


def _directory(variable: str, name: str) -> Path:
    """The directory that a variable names, else the first of the usual ones that exists."""
    given = os.environ.get(variable)
    candidates = [Path(given)] if given else [Path("diskimage_builder") / name, Path(name)]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise UsageError(
        f"there is no directory {' or '.join(map(str, candidates))}", hint=f"set {variable}, or go to where it is"
    )


def _library() -> Path | None:
    """The directory of shell libraries; there need not be one unless LIB_DIR says so."""
    try:
        return _directory("LIB_DIR", "lib")
    except UsageError:
        if os.environ.get("LIB_DIR"):
            raise
        return None


def ignored_rules() -> list[str]:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read("tox.ini", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"tox.ini: {error}".replace("\n", " ")) from error
    return config.get("dib-lint", "ignore", fallback="").replace(",", " ").split()


class IgnoredByGit:
    """Whether git ignores a file. Git is asked once, for all files; without git, or a repository, none is ignored."""

    def __init__(self) -> None:
        self._files: frozenset[Path] | None = None

    def __call__(self, path: Path) -> bool:
        if self._files is None:
            self._files = self._ask()
        return path.absolute() in self._files

    @staticmethod
    def _ask() -> frozenset[Path]:
        git = shutil.which("git")
        if not git:
            return frozenset()
        options = ["ls-files", "--others", "--ignored", "--exclude-standard", "--full-name", "-z"]
        answer = run([git, *options], env=host_environment("HOME"), cwd=Path.cwd(), check=False)
        top = run([git, "rev-parse", "--show-toplevel"], env=host_environment("HOME"), cwd=Path.cwd(), check=False)
        if answer.status or top.status:
            return frozenset()
        return frozenset(Path(top.output) / name for name in answer.output.split("\0") if name)


def python_problems(path: Path) -> list[str]:
    """What flake8 says of a script; where there is no flake8, whether it compiles."""
    flake8 = shutil.which("flake8")
    if flake8:
        answer = run([flake8, str(path)], env=host_environment("HOME"), cwd=Path.cwd(), check=False)
        return answer.output.splitlines() if answer.status else []
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        return [f"is not Python 3: {error}"]
    return []


if __name__ == "__main__":
    sys.exit(main())
