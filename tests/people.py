"""The ordinary user that tests act as, with a checkout of this repository of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
NAME = os.environ.get("DIBBLE_TEST_USER") or "dibble-test"
"""Another name lets two checkouts be tested side by side: each user has one checkout and one cache."""
IDS = 65536
# What a program needs of our environment to reach the network; nothing of our own directories.
PASSED = re.compile(
    r"(https?|ftp|all|no)_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_\w+|DIB_DISTRIBUTION_MIRROR", re.I
)


DIRECTORIES: set[tuple[Person, Path]] = set()
"""Whose directories were made since they were last removed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who runs dibble. `checkout` is their copy of the repository, `cache` their cache between test runs."""

    name: str
    uid: int
    gid: int
    home: Path
    checkout: Path
    cache: Path

    def environment(self, **more: str) -> dict[str, str]:
        """A small environment of their own, with their cache for builds."""
        base = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
        return {
            **base,
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "DIB_IMAGE_CACHE": str(self.cache),
            **more,
        }

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 900,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this person and return its output as text; with `check`, a failure shows the output."""
        done = subprocess.run(
            list(map(str, argv)),
            cwd=cwd or self.home,
            env=dict(env) if env is not None else self.environment(),
            check=False,
            timeout=timeout,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            user=None if os.getuid() == self.uid else self.uid,
            group=None if os.getuid() == self.uid else self.gid,
            extra_groups=None if os.getuid() == self.uid else [],
        )
        assert not check or done.returncode == 0, (
            f"{argv} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        return done

    def dibble(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 900,
    ) -> subprocess.CompletedProcess[str]:
        """Run `./dibble` of their checkout."""
        return self.run([self.checkout / "dibble", *arguments], cwd=cwd, env=env, check=check, timeout=timeout)

    def directory(self, name: str) -> Path:
        """A new empty directory in their home, removed first when it was there, and after the file of tests."""
        path = self.home / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        os.chown(path, self.uid, self.gid)
        DIRECTORIES.add((self, path))
        return path


def remove_directories() -> set[Person]:
    """Remove every directory that was made for tests, and tell whose they were."""
    people = {person for person, _ in DIRECTORIES}
    for _, path in DIRECTORIES:
        shutil.rmtree(path, ignore_errors=True)
    DIRECTORIES.clear()
    return people


@contextmanager
def leaving_sessions(person: Person) -> Iterator[None]:
    """While a test kills what works in a person's cache, until the next build has swept up, nobody looks for leavings.

    Other tests run beside it, in the same cache. `left_sessions` must not be asked for within the block.
    """
    with _sessions_of(person).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sessions_of(person: Person) -> Path:
    return Path(f"/tmp/dibble-test-sessions-{person.name}-{os.getuid()}.lock")


def left_sessions(person: Person) -> list[Path]:
    """Directories of builds that are over, but for those that a test beside this one leaves."""
    with _sessions_of(person).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return _left_sessions(person)


def _left_sessions(person: Person) -> list[Path]:
    left = []
    for path in (person.cache / "tmp").glob("*/.alive"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.append(path.parent)
    return left


def shared_cache() -> Path:
    """Where downloads and layers stay from one run of the tests to the next."""
    return Path(os.environ.get("DIBBLE_TEST_CACHE") or Path.home() / ".cache/dibble-test")


def ourselves() -> Person:
    """Whoever runs the tests."""
    entry = pwd.getpwuid(os.getuid())
    return Person(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir), REPOSITORY, shared_cache())


def ordinary_user() -> Person:
    """An ordinary user with subordinate ids: ourselves, or as root `dibble-test`, made where missing.

    As root, their checkout is brought up to date with this repository, and downloads are shared between both caches.
    """
    if os.getuid() != 0:
        return ourselves()
    with _locked("dibble-test-user"):
        _make_user()
        entry = pwd.getpwnam(NAME)
        home = Path(entry.pw_dir)
        if not home.is_dir():  # somebody has tidied up
            home.mkdir(mode=0o700, parents=True)
            os.chown(home, entry.pw_uid, entry.pw_gid)
        person = Person(NAME, entry.pw_uid, entry.pw_gid, home, home / "checkout", home / ".cache/dibble-test")
        (home / ".cache").mkdir(exist_ok=True)
        person.cache.mkdir(parents=True, exist_ok=True)
        for path in (home / ".cache", person.cache):
            os.chown(path, person.uid, person.gid)
        _copy_checkout(person)
        person.dibble("--version")  # makes its virtual environment, and says so
        share_downloads(shared_cache(), person)
    return person


def share_downloads(cache: Path, person: Person) -> None:
    """Give each of two caches the other's downloads, by hard links where the file system is one."""
    ours, theirs = cache / "blobs", person.cache / "blobs"
    for source, target, owner in ((ours, theirs, (person.uid, person.gid)), (theirs, ours, (0, 0))):
        for blob in source.glob("??/*") if source.is_dir() else ():
            link = target / blob.parent.name / blob.name
            if link.exists() or len(blob.name) != 64:
                continue
            for folder in (target, link.parent):
                if not folder.is_dir():
                    folder.mkdir(parents=True)
                    os.chown(folder, *owner)
            try:
                os.link(blob, link)
            except OSError:
                shutil.copy2(blob, link)


def _make_user() -> None:
    try:
        pwd.getpwnam(NAME)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", NAME], check=True)
    for file, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        lines = [line.split(":") for line in Path(file).read_text().splitlines()] if Path(file).exists() else []
        if not any(line[0] == NAME and int(line[2]) >= IDS for line in lines):
            first = max([100000, *(int(line[1]) + int(line[2]) for line in lines)])
            subprocess.run(["usermod", option, f"{first}-{first + IDS - 1}", NAME], check=True)


def _copy_checkout(person: Person) -> None:
    """Copy the files of this repository, committed or not, into the person's checkout; their .venv stays."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
    checkout = person.checkout
    for present in list(checkout.rglob("*")) if checkout.is_dir() else ():
        name = str(present.relative_to(checkout))
        if not name.startswith(".venv") and (present.is_symlink() or present.is_file()) and name not in names:
            present.unlink()
    for name in sorted(names):
        source, target = REPOSITORY / name, checkout / name
        if not source.is_symlink() and not source.is_file():
            continue
        if target.exists() and _same(source, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    for folder, _, files in os.walk(checkout):
        if ".venv" in Path(folder).relative_to(checkout).parts:
            continue
        for path in (folder, *(f"{folder}/{name}" for name in files)):
            os.chown(path, person.uid, person.gid, follow_symlinks=False)


def _same(source: Path, target: Path) -> bool:
    one, two = source.lstat(), target.lstat()
    return (one.st_mode, one.st_size, one.st_mtime_ns) == (two.st_mode, two.st_size, two.st_mtime_ns)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with Path(f"/tmp/{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
