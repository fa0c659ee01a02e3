"""A stand-in for a build, to run the scripts of shipped elements that work outside a target."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from dibble.run.prepare import CATALOGUE
from dibble.sandbox.process import Completed, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ELEMENTS = CATALOGUE / "elements"
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


class HookBuild:
    """The directories that hooks see, and programs faked for them. Calls of the fakes are in `calls`, a word a line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target, self.hooks, self.cache, self.out = (root / name for name in ("mnt", "hooks", "cache", "out"))
        self.bin = root / "fakes"
        for path in (self.target / "etc", self.hooks / "bin", self.cache, self.out, self.bin):
            path.mkdir(parents=True)
        self.fake("chown", "exit 0")

    def fake(self, name: str, *lines: str) -> None:
        """A program that notes its arguments and then runs these lines of shell."""
        path = self.bin / name
        path.write_text("\n".join(("#!/bin/bash", f'printf "%s\\n" {name} "$@" >> {self.root}/calls', *lines, "")))
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        file = self.root / "calls"
        return [line for line in file.read_text().splitlines() if line != "chown"] if file.exists() else []

    def command(self, element: str, name: str) -> None:
        """Show an element's command in the hooks, as the merge does."""
        shutil.copy2(ELEMENTS / element / "bin" / name, self.hooks / "bin" / name)

    def run(self, script: str, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None) -> Completed:
        """Run ELEMENT/DIRECTORY/SCRIPT as a hook outside the target; its status has to be `status`."""
        variables = {
            "PATH": f"{self.bin}:{SYSTEM}",
            "HOME": str(self.root),
            "TARGET_ROOT": str(self.target),
            "TMP_MOUNT_PATH": str(self.target),
            "TMP_HOOKS_PATH": str(self.hooks),
            "DIB_IMAGE_CACHE": str(self.cache),
            "DIB_OFFLINE": "",
            "_LIB": str(CATALOGUE / "lib"),
            **(env or {}),
        }
        done = run([str(ELEMENTS / script), *arguments], env=variables, cwd=self.out, check=False)
        assert done.status == status, done.output
        return done


def run_inside(
    build: HookBuild,
    script: str,
    *arguments: str,
    status: int = 0,
    env: Mapping[str, str] | None = None,
    instead: Mapping[str, str] | None = None,
) -> Completed:
    """Run a script that works inside the target on the target's directory: it has no other root here.

    `instead` has other texts of the script that are replaced.
    """
    text = (ELEMENTS / script).read_text()
    for old, new in (instead or {}).items():
        text = text.replace(old, new)
    for top in ("/etc/", "/boot/", "/usr/lib/modules", "/usr/lib/sysimage", "/var/lib/rpm", "/tmp/yum"):
        text = text.replace(f" {top}", f" {build.target}{top}").replace(f"={top}", f"={build.target}{top}")
    copy = build.root / "inside"
    copy.write_text(text)
    copy.chmod(0o755)
    variables = {"PATH": f"{build.bin}:{SYSTEM}", "HOME": str(build.root), **(env or {})}
    done = run([str(copy), *arguments], env=variables, cwd=build.out, check=False)
    assert done.status == status, done.output
    return done


def after(words: list[str], option: str) -> list[str]:
    """The values of an option that may be repeated."""
    return [words[number + 1] for number, word in enumerate(words) if word == option]


def downloads(build: HookBuild, files: Mapping[str, str]) -> None:
    """A `cache-url` that knows these files by the last part of their address, and an `extract-image`."""
    web = build.root / "web"
    web.mkdir()
    for name, text in files.items():
        (web / name).write_text(text)
    for name, lines in {
        "cache-url": ['[ "$1" != -f ] || shift', f'cp "{web}/${{1##*/}}" "$2"'],
        "extract-image": ['echo "unpacking $DIB_LOCAL_IMAGE"'],
        "signed-text": ['[ "$1" != -f ] || shift 2', f"[ ! -e {build.root}/forged ] || exit 1", 'cat "$2"'],
        "ubuntu-key": ['echo key > "$2"'],
    }.items():
        build.fake(name, *lines)
        shutil.move(build.bin / name, build.hooks / "bin" / name)
