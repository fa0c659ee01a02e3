"""The tools tree made from small packages of our own, on a mirror that is a directory."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.unit.debs import ROOT, File, deb_of

from dibble.errors import FetchError, FileGone, HostError, PackageError, UsageError
from dibble.events import Event, Events, Note
from dibble.sandbox import tools, tools_merge
from dibble.sandbox.tools import ToolsTree, default_mirrors, host_arch
from dibble.sandbox.tools_lock import LockedPackage, ToolsLock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

DIRECTORY = 0o755
BASE_FILES = [
    ROOT,
    File("./bin", kind="2", link="usr/bin"),
    File("./lib", kind="2", link="usr/lib"),
    File("./etc/", kind="5", mode=DIRECTORY),
    File("./tmp/", kind="5", mode=0o1777),
    File("./usr/", kind="5", mode=DIRECTORY),
    File("./usr/share/base-files/info", b""),
]
BASE_PASSWD = [
    ROOT,
    File("./usr/share/base-passwd/passwd.master", b"root:*:0:0:root:/root:/bin/bash\n_apt:*:42:65534::/:/bin/sh\n"),
    File("./usr/share/base-passwd/group.master", b"root:*:0:\n"),
]
GAWK = [ROOT, File("./usr/bin/gawk", b"#!/bin/sh\n", mode=0o755), File("./usr/share/doc/gawk/copyright", b"x")]
OLD_STYLE = [
    ROOT,
    File("./lib/", kind="5", mode=DIRECTORY),
    File("./lib/firmware/", kind="5", mode=0o750, mtime=1_500_000_000),
    File("./lib/firmware/blob", b"b"),
    File("./usr/share/ca-certificates/b.crt", b"two"),
    File("./usr/share/ca-certificates/a.crt", b"one\n"),
]
QEMU = [ROOT, File("./usr/bin/qemu", b"q", mode=0o755)]


@dataclass
class Listener:
    notes: list[Note] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event)

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Mirror:
    """An archive's pool, the lock made from it, and a store to unpack into."""

    root: Path
    groups: dict[str, list[LockedPackage]] = field(default_factory=dict)
    listener: Listener = field(default_factory=Listener)

    def add(self, group: str, name: str, files: list[File], version: str = "1") -> Path:
        data = deb_of(files, ".gz")
        path = f"pool/{name}_{version}.deb"
        file = self.root / "debian" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        package = LockedPackage(name, version, hashlib.sha256(data).hexdigest(), len(data), path)
        self.groups.setdefault(group, []).append(package)
        return file

    @property
    def lock(self) -> ToolsLock:
        return ToolsLock("trixie", "amd64", "20250906T101444Z", {name: tuple(g) for name, g in self.groups.items()})

    def tree(self, *, offline: bool = False) -> ToolsTree:
        return ToolsTree(
            self.root / "store",
            Events([self.listener]),
            mirrors=[f"file:{self.root}/debian/"],
            lock=self.lock,
            offline=offline,
        )


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    monkeypatch.setattr(tools, "SNAPSHOT", f"file:{tmp_path}/snapshot")
    made = Mirror(tmp_path)
    made.add("core", "gawk", GAWK)
    made.add("core", "old-style", OLD_STYLE)
    made.add("core", "base-files", BASE_FILES)
    made.add("core", "base-passwd", BASE_PASSWD)
    made.add("qemu-system", "qemu", QEMU)
    return made


def test_core_becomes_a_root_that_works(mirror: Mirror) -> None:
    (root,) = mirror.tree().ensure("core")
    assert (root / "bin").is_symlink()
    assert (root / "lib/firmware/blob").read_bytes() == b"b"
    assert (root / "usr/lib/firmware").stat().st_mtime == 1_500_000_000
    assert stat.S_IMODE((root / "usr/lib/firmware").stat().st_mode) == 0o750
    assert (root / "usr/bin/awk").readlink().name == "gawk"
    assert not (root / "usr/share/doc").exists()
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "one\ntwo\n"
    assert (root / "etc/passwd").read_text().startswith("root:*:0:0:")
    assert (root / "etc/shadow").read_text().count(":*:") == 2
    assert os.access(root / "usr/local/bin/sudo", os.X_OK)
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def test_files_are_hard_links_into_the_package_store(mirror: Mirror) -> None:
    (root,) = mirror.tree().ensure("core")
    assert (root / "usr/bin/gawk").stat().st_nlink == 2
    assert (root / "etc/passwd").stat().st_nlink == 1, "what we write is our own"


def test_groups_come_as_an_overlay_takes_them(mirror: Mirror) -> None:
    tree = mirror.tree()
    first, last = tree.ensure("core", "qemu-system")
    assert (first / "usr/bin/qemu").exists()
    assert not (first / "etc").exists()
    assert (last / "usr/bin/gawk").exists()
    assert tree.ensure("qemu-system") == (first, last), "core is always there"


def test_what_is_there_needs_neither_mirror_nor_walk(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = mirror.tree().ensure("core")
    for path in (mirror.root / "debian/pool").iterdir():
        path.unlink()
    monkeypatch.setattr(os, "scandir", None)
    assert mirror.tree(offline=True).ensure("core") == expected


def test_only_the_groups_asked_for_are_fetched(mirror: Mirror) -> None:
    (mirror.root / "debian/pool/qemu_1.deb").unlink()
    mirror.tree().ensure("core")


def test_an_unknown_group_is_told(mirror: Mirror) -> None:
    with pytest.raises(UsageError, match="rpm"):
        mirror.tree().ensure("core", "rpm")


def test_offline_names_what_is_missing(mirror: Mirror) -> None:
    with pytest.raises(FetchError, match=r"gawk.*--offline"):
        mirror.tree(offline=True).ensure("core")


def test_two_packages_with_one_file_are_refused_and_leave_nothing(mirror: Mirror) -> None:
    mirror.add("core", "other-awk", [ROOT, File("./usr/bin/gawk", b"other")])
    with pytest.raises(PackageError, match="have /usr/bin/gawk"):
        mirror.tree().ensure("core")
    assert list((mirror.root / "store/tmp").iterdir()) == []
    assert list((mirror.root / "store/tools").iterdir()) == []


def test_the_identity_is_that_of_the_programs(mirror: Mirror) -> None:
    before = mirror.tree().identity
    assert mirror.tree().identity_of("core") == before
    assert mirror.tree().identity_of("qemu-system") != before
    mirror.add("qemu-system", "more", QEMU)
    assert mirror.tree().identity == before
    mirror.add("core", "more", [ROOT])
    assert mirror.tree().identity != before


def test_a_new_way_of_merging_makes_a_new_tree(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    before, old = mirror.tree().identity, mirror.tree().ensure("core")
    monkeypatch.setattr(tools_merge, "VERSION", tools_merge.VERSION + 1)
    assert mirror.tree().identity != before
    assert mirror.tree().ensure("core") != old


def test_the_snapshot_is_asked_when_the_mirror_has_moved_on(mirror: Mirror) -> None:
    gone = mirror.root / "debian/pool/gawk_1.deb"
    kept = mirror.root / f"snapshot/{mirror.lock.snapshot}/pool/gawk_1.deb"
    kept.parent.mkdir(parents=True)
    gone.rename(kept)
    mirror.tree().ensure("core")
    assert mirror.listener.notes == []


def test_packages_gone_everywhere_are_replaced_with_a_warning(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, locked_identity = mirror.lock, mirror.tree().identity
    (mirror.root / "debian/pool/gawk_1.deb").unlink()
    newer = Mirror(mirror.root)
    newer.groups = {"core": list(lock.group("core")[1:]), "qemu-system": list(lock.group("qemu-system"))}
    newer.add("core", "gawk", [*GAWK, File("./usr/bin/new", b"")], version="2")
    asked: list[object] = []

    def resolve(wanted: dict[str, list[str]], **_: object) -> ToolsLock:
        asked.append(wanted)
        return newer.lock

    monkeypatch.setattr(tools, "resolve", resolve)
    tree = mirror.tree()
    (root,) = tree.ensure("core")
    assert (root / "usr/bin/new").exists()
    assert asked == [{"core": ["gawk", "old-style", "base-files", "base-passwd"], "qemu-system": ["qemu"]}]
    assert "dibble tools update" in mirror.listener.notes[-1].text
    assert mirror.listener.notes[-1].level == "warning"
    assert tree.identity not in (locked_identity, "")
    mirror.listener.notes.clear()
    assert mirror.tree().ensure("core") == (root,), "the choice stays"
    assert len(asked) == 1
    assert len(mirror.listener.notes) == 1, "and is told again"


def test_packages_gone_everywhere_stop_an_offline_run(mirror: Mirror) -> None:
    (mirror.root / "debian/pool/gawk_1.deb").unlink()
    with pytest.raises(FetchError) as caught:
        mirror.tree(offline=True).ensure("core")
    assert not isinstance(caught.value, FileGone)


def test_the_targets_mirror_counts_only_when_it_is_debians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIB_DISTRIBUTION_MIRROR", "http://mirror.example/debian/")
    assert default_mirrors()[0] == "http://mirror.example/debian"
    monkeypatch.setenv("DIB_DISTRIBUTION_MIRROR", "http://mirror.example/ubuntu")
    assert "http://mirror.example/ubuntu" not in default_mirrors()
    assert default_mirrors()


def test_a_machine_without_tools_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert host_arch() == "arm64"
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(HostError, match="no tools tree for vax machines"):
        host_arch()


def sudo(tmp_path: Path, *words: str, setpriv: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the shim; with `setpriv`, one that only prints how it was called stands in its way."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin/sudo").write_text(tools_merge.SUDO)
    (tmp_path / "bin/sudo").chmod(0o755)
    if setpriv:
        (tmp_path / "bin/setpriv").write_text('#!/bin/sh\necho setpriv "$@"\n')
        (tmp_path / "bin/setpriv").chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "KEPT": "kept"}
    return subprocess.run(
        ["sudo", *words], env=environment, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["printf", "%s.", "a b", "c"], "a b.c."),
        (["-E", "-H", "-n", "printf", "x"], "x"),
        (["-EHn", "printf", "x"], "x"),
        (["--preserve-env=A,B", "--non-interactive", "printf", "x"], "x"),
        (["-E", "sh", "-c", 'echo "$KEPT"'], "kept\n"),
        (["A=1", "B=x y", "sh", "-c", 'echo "$A$B"'], "1x y\n"),
        (["-E", "A=1", "--", "sh", "-c", 'echo "$A"'], "1\n"),
        (["--", "A=1", "sh", "-c", 'echo "$A"'], "1\n"),
        (["-u", "root", "printf", "x"], "x"),
        (["-uroot", "printf", "x"], "x"),
        (["--user=root", "printf", "x"], "x"),
        (["-u", "#0", "printf", "x"], "x"),
        (["-p", "password:", "printf", "x"], "x"),
        (["-s", "printf", "%s", "a b"], "a b"),
        (["-i", "printf", "%s", "a b"], "a b"),
        (["printf", "%s", "-u"], "-u"),
        (["printf", "%s", "A=1"], "A=1"),
        (["-v"], ""),
        (["-k"], ""),
        (["-n", "true"], ""),
    ],
)
def test_sudo_runs_the_command_as_it_is(tmp_path: Path, words: list[str], output: str) -> None:
    done = sudo(tmp_path, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


def test_sudo_passes_the_status_on(tmp_path: Path) -> None:
    assert sudo(tmp_path, "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("words", [["-u", "nobody", "id"], ["-unobody", "id"], ["-Hu", "nobody", "--", "id"]])
def test_sudo_to_another_user_changes_to_them(tmp_path: Path, words: list[str]) -> None:
    done = sudo(tmp_path, *words, setpriv=True)
    assert done.stdout.startswith("setpriv --reuid=nobody --regid=")
    assert done.stdout.endswith("--init-groups -- id\n")


@pytest.mark.parametrize("words", [["--frobnicate", "true"], ["-Z", "true"], ["-u"]])
def test_sudo_refuses_what_it_does_not_know(tmp_path: Path, words: list[str]) -> None:
    done = sudo(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.startswith("sudo: ")
