"""Building probe elements with dibble or with diskimage-builder, and looking at what they wrote down."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.contract.probes.elements import write_elements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.people import Person

DIB = ("diskimage-builder==3.43.0", "setuptools<80")
# What it calls on a Debian host.
DIB_PACKAGES = ("dosfstools", "e2fsprogs", "gdisk", "git", "kpartx", "qemu-utils", "rsync", "sudo")
SHIPPED = (
    "install-bin", "install-static", "install-types", "package-installs", "pkg-map", "svc-map", "dib-init-system",
    "dib-python", "manifests", "element-manifest", "source-repositories",
)  # fmt: skip
PROBES = (
    "probe-os", "probe-state", "probe-odd-order", "probe-order", "probe-static", "probe-library", "probe-packages-too",
    "probe-kinds", "probe-sources",
)  # fmt: skip
VARIABLES = {
    "DIB_NO_TIMESTAMP": "1",
    "PROBE_VALUE": "two words\nand a 'line'",
    "PROBE_WHEN": "one two",
    "TMPDIR": "/tmp",
    "DIB_INSTALLTYPE_probe_chosen": "package",
    "DIB_INSTALLTYPE_probe_skipped": "package",
    "DIB_REPOREF_probe_moved": "other",
    "DIB_PROBE_SECRET": "shown",
    "DIB_PYTHON_VERSION": "3",  # for Debian, diskimage-builder takes 2 unless told
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a tree. `kind` is tarfile's type, `mode` the permission bits."""

    kind: bytes
    mode: int
    uid: int
    link: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Built:
    """What a build left: its status, what it said, the tree, and the directory where it was called."""

    status: int
    output: str
    place: Path
    tree: Mapping[str, Entry] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """A file of the tree, without the last line end; None when there is none."""
        entry = self.tree.get(name)
        return entry.content.decode("utf-8", "replace").removesuffix("\n") if entry else None

    def lines(self, name: str) -> list[str]:
        return (self.text(name) or "").splitlines()

    def environment(self, phase: str) -> dict[str, str]:
        text = self.text(f"probe/{phase}/env") or ""
        return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)

    def mounts(self, phase: str) -> dict[str, tuple[str, bool]]:
        """Mount point → (file system, read-only), as the phase's script saw them."""
        found = {}
        for line in self.lines(f"probe/{phase}/mounts"):
            left, _, right = line.partition(" - ")
            fields = left.split()
            options = {*fields[5].split(","), *right.split()[2].split(",")}
            found[fields[4]] = (right.split()[0], "ro" in options)
        return found

    def mode(self, name: str) -> str | None:
        entry = self.tree.get(name)
        return f"{entry.mode:o} {entry.uid}" if entry else None


class Builder(Protocol):
    """A program that builds images."""

    def build(self, *words: str, **variables: str) -> Built:
        """disk-image-create of these elements to a tar."""
        ...


class Dibble:
    """dibble, called by a person."""

    def __init__(self, person: Person, place: Path) -> None:
        self._person, self._place = person, place
        prepare(place)
        for path in (place, *place.rglob("*")):
            os.chown(path, person.uid, person.gid, follow_symlinks=False)

    def build(self, *words: str, **variables: str) -> Built:
        env = self._person.environment(**{**variables_for(self._place), **variables})
        done = self._person.dibble("disk-image-create", *arguments(words), cwd=self._place, env=env, check=False)
        return _built(done, self._place)


class DiskimageBuilder:
    """diskimage-builder from PyPI, in a virtual environment below `home`."""

    def __init__(self, home: Path, place: Path) -> None:
        self._venv, self._place = home / "venv", place
        prepare(place)
        if not (self._venv / "bin" / "disk-image-create").exists():
            subprocess.run([sys.executable, "-m", "venv", self._venv], check=True)
            subprocess.run([self._venv / "bin" / "pip", "install", "-q", *DIB], check=True)
        self._cache = home / "cache"

    def build(self, *words: str, **variables: str) -> Built:
        yaml = next((self._venv / "lib").glob("python3*/site-packages/yaml"))
        env = {
            "HOME": str(Path.home()),
            "USER": "root",
            "PATH": f"{self._venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "DIB_IMAGE_CACHE": str(self._cache),
            "PROBE_PYTHON": os.path.realpath(sys.executable),
            "PROBE_YAML": str(yaml),
            **variables_for(self._place),
            **variables,
        }
        done = subprocess.run(
            [self._venv / "bin" / "disk-image-create", *arguments(words)],
            cwd=self._place, env=env, check=False, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=600,
        )  # fmt: skip
        return _built(done, self._place)


def arguments(words: tuple[str, ...]) -> list[str]:
    return ["-n", "-t", "tar", "-o", "probe", "--image-size", "1", *words]


def variables_for(place: Path) -> dict[str, str]:
    sources = place / "sources"
    return {
        **VARIABLES,
        "ELEMENTS_PATH": str(place / "elements"),
        "PROBE_SOURCES": str(sources),
        "DIB_REPOLOCATION_probe_moved": f"file://{sources}/repository",
    }


def prepare(place: Path) -> None:
    """Write the elements, and sources for them to fetch."""
    write_elements(place / "elements")
    sources = place / "sources"
    (sources / "top").mkdir(parents=True)
    (sources / "a-file").write_text("a file\n")
    (sources / "top" / "f").write_text("from the tar\n")
    with tarfile.open(sources / "x.tar.gz", "w:gz") as tar:
        tar.add(sources / "top", "top")
    repository = sources / "repository"
    repository.mkdir()
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    when = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(place), **who, **when}

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", repository, *words], env=environment, check=True, capture_output=True)

    git("init", "-q", "-b", "master")
    for branch in ("master", "other"):
        if branch != "master":
            git("checkout", "-q", "-b", branch)
        (repository / "f").write_text(f"{branch}\n")
        git("add", "f")
        git("commit", "-q", "-m", branch)
    git("checkout", "-q", "master")


def _built(done: subprocess.CompletedProcess[str], place: Path) -> Built:
    output = done.stdout + done.stderr
    file = place / "probe.tar"
    if not file.exists():
        return Built(done.returncode, output, place)
    tree = _tree_of(file)
    file.unlink()
    return Built(done.returncode, output, place, tree)


def _tree_of(file: Path) -> dict[str, Entry]:
    found = {}
    with tarfile.open(file) as tar:
        for member in tar:
            small = member.isreg() and member.size < 1 << 20
            data = tar.extractfile(member) if small else None
            content = data.read() if data else b""
            name = member.name.removeprefix("./")
            found[name] = Entry(member.type, member.mode, member.uid, member.linkname, content)
    return found
