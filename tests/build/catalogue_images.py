"""Images of shipped elements, built once by a test module, and what their trees hold."""

from __future__ import annotations

import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.build.small_elements import SmallElements
    from tests.people import Person


CONTENT_LIMIT = 1 << 20
CLOUD = "etc/cloud/cloud.cfg.d"


@dataclass
class Image:
    """A tree out of a tar: `text` of small files, `links`, `modes`, and what lies beside the image."""

    person: Person
    directory: Path
    name: str
    output: str
    text: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with tarfile.open(self.directory / f"{self.name}.tar") as archive:
            for member in archive:
                path = os.path.normpath(member.name)
                self.modes[path] = member.mode
                self.owners[path] = (member.uid, member.gid)
                if member.issym():
                    self.links[path] = member.linkname
                elif member.isreg() and member.size < CONTENT_LIMIT:
                    data = archive.extractfile(member)
                    assert data is not None
                    self.text[path] = data.read().decode("utf-8", "replace")

    def lines(self, path: str) -> list[str]:
        return self.text[path].splitlines()

    def enabled(self, unit: str) -> bool:
        """Whether systemd starts a unit at boot."""
        return any(path.endswith(f".wants/{unit}") for path in self.links if path.startswith("etc/systemd/system/"))

    @cached_property
    def packages(self) -> dict[str, str]:
        """Installed packages and their versions."""
        found = {}
        for block in self.text_of_dpkg.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", block, re.M))
            if fields.get("Status") == "install ok installed":
                found[fields["Package"]] = fields["Version"]
        return found

    @cached_property
    def text_of_dpkg(self) -> str:
        with tarfile.open(self.directory / f"{self.name}.tar") as archive:
            data = archive.extractfile("./var/lib/dpkg/status")
            assert data is not None
            return data.read().decode()

    def could_go(self) -> dict[str, dict[str, Any]]:
        """What `dibble check` says of the build, by the name of each package. The build is in the store."""
        words = ("check", "--json", "-o", self.name, *self.words)
        done = self.person.dibble(*words, cwd=self.directory, env=self.environment)
        report = json.loads(done.stdout)
        assert sum(row["bytes"] for row in report["unneeded"]) < report["bytes"]
        return {row["package"]: row for row in report["unneeded"]}

    def attributes(self, name: str) -> dict[str, str]:
        """Files that have an extended attribute, with its value."""
        key = f"SCHILY.xattr.{name}"
        with tarfile.open(self.directory / f"{self.name}.tar") as archive:
            return {os.path.normpath(one.name): one.pax_headers[key] for one in archive if key in one.pax_headers}

    def passwd(self, user: str) -> list[str]:
        (entry,) = [line.split(":") for line in self.lines("etc/passwd") if line.startswith(f"{user}:")]
        return entry


def build(elements: SmallElements, name: str, *words: str, formats: str = "tar", **variables: str) -> Image:
    env = elements.environment(**variables)
    person = elements.person
    done = person.dibble("build", "-t", formats, "-o", name, *words, cwd=elements.place, env=env, timeout=1800)
    return Image(person, elements.place, name, done.stdout, words=("-t", formats, *words), environment=env)


def owned(person: Person, *paths: Path) -> None:
    for path in paths:
        os.chown(path, person.uid, person.gid)
        if path.is_dir():
            owned(person, *path.iterdir())
