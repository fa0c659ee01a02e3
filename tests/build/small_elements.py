"""Elements for tests of real builds that cost a second: a target of a shell and some programs, no packages."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.run.prepare import CATALOGUE

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.people import Person

ROOT = """#!/bin/bash
set -eu
mkdir -p "$TARGET_ROOT"/{{etc,proc,sys,dev,tmp,run,root,opt,var/log,var/tmp,usr/bin,usr/sbin,usr/lib,usr/lib64}}
for name in bin sbin lib lib64; do ln -s usr/$name "$TARGET_ROOT/$name"; done
programs="bash cat chmod cp cut dirname env find grep head id ls"
programs="$programs mkdir mkfifo mktemp mv printenv rm sed sleep sort stat touch tr unshare"
for program in $programs; do
    cp "/usr/bin/$program" "$TARGET_ROOT/usr/bin/"
    for library in $(ldd "/usr/bin/$program" | grep -o '/[^ ]*'); do
        mkdir -p "$TARGET_ROOT${{library%/*}}"
        [ -e "$TARGET_ROOT$library" ] || cp -L "$library" "$TARGET_ROOT$library"
    done
done
ln -s bash "$TARGET_ROOT/usr/bin/sh"
echo {mark} > "$TARGET_ROOT/etc/mark"
echo root:x:0:0:root:/root:/bin/bash > "$TARGET_ROOT/etc/passwd"
"""
"""Of the tools tree, in which outside scripts run."""


BASE = ("-n", "-t", "tar")
"""There is no base, and a tar needs no disk."""


@dataclass
class SmallElements:
    """Elements of a test in `place`, and builds of them by `person`. `small` provides the operating system."""

    person: Person
    place: Path
    mark: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Stands in the tree, so that no layer is shared with other tests."""

    def __post_init__(self) -> None:
        self.write("small/element-provides", "operating-system\n")
        self.write("small/README.rst", "=====\nsmall\n=====\nA shell and some programs.\n")
        self.script("small/root.d/10-small", ROOT.format(mark=self.mark), whole=True)

    @property
    def elements(self) -> Path:
        return self.place / "elements"

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """A file of an element, by `ELEMENT/PATH`."""
        path = self.elements / name
        for folder in reversed([path.parent, *path.parent.parents]):
            if folder.is_relative_to(self.place) and not folder.is_dir():
                folder.mkdir()
                os.chown(folder, self.person.uid, self.person.gid)
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, self.person.uid, self.person.gid)
        return path

    def script(self, name: str, text: str, *, whole: bool = False) -> Path:
        """A script, of which `text` is all, or what comes behind a usual beginning."""
        return self.write(name, text if whole else f"#!/bin/bash\nset -eu\n{text}\n", 0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        return self.person.environment(ELEMENTS_PATH=str(self.elements), DIB_NO_TIMESTAMP="1", **variables)

    def run(self, verb: str, *words: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of dibble on these elements."""
        return self.person.dibble(verb, *words, cwd=self.place, env=self.environment(**variables), check=check)

    def plan(self, *words: str, **variables: str) -> dict[str, Any]:
        """The plan of a build to a tar, as data."""
        env = self.environment(**variables)
        done = self.person.dibble("plan", *BASE, "--json", *words, cwd=self.place, env=env)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def copy(self, name: str, *, without: str = "package-installs.yaml") -> None:
        """Take an element of the catalogue, less its packages, such as a kernel."""
        for file in (CATALOGUE / "elements" / name).rglob("*"):
            if file.is_file() and file.name != without:
                path = file.relative_to(CATALOGUE / "elements")
                self.write(str(path), file.read_text(), file.stat().st_mode & 0o777)

    def refused(self, *words: str, **variables: str) -> str:
        """What a build says that ends with an error, which is no traceback, and leaves nothing."""
        done = self.run("build", *BASE, "-o", "never", *words, check=False, **variables)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "Traceback" not in said
        assert os.listdir(self.place) == ["elements"]  # noqa: PTH208 - names only
        return said

    def build(self, *words: str, check: bool = True, **variables: str) -> list[dict[str, Any]]:
        """Build to a tar; returns the events."""
        env = self.environment(**variables)
        done = self.person.dibble("build", *BASE, "--json", *words, cwd=self.place, env=env, check=check)
        return [json.loads(line) for line in done.stdout.splitlines()]


def ran(events: list[dict[str, Any]]) -> list[str]:
    """The steps that were run, in order."""
    return [event["step"] for event in events if event["event"] == "StepStarted"]


def cached(events: list[dict[str, Any]]) -> list[str]:
    """The steps that were taken from the store, in order."""
    return [event["step"] for event in events if event["event"] == "StepCached"]


def printed(events: list[dict[str, Any]], step: str) -> list[str]:
    """The lines that a step printed."""
    return [event["text"] for event in events if event["event"] == "OutputLine" and event["step"] == step]
