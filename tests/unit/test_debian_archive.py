"""Signed archives made here, with keys made here: what is accepted, and what an index says."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import pysequoia
import pytest
from debian.deb822 import Packages
from hypothesis import given
from hypothesis import strategies as st
from pysequoia import Cert, SignatureMode, Tsk

from dibble.errors import FetchError, FileGone, PackageError, SignatureError
from dibble.events import Events
from dibble.packages import debian_archive
from dibble.packages.debian_archive import KEYS, DebianArchive, certificates, read_release, verified
from dibble.packages.packages_index import PackagesIndex, Relation, closure, relations

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

INDEX = """\
Package: hello
Version: 2.10-3
Architecture: amd64
Depends: libc6 (>= 2.34)
Description: greets
 and says: Package: nothing
Filename: pool/main/h/hello/hello_2.10-3_amd64.deb
Size: 53084
SHA256: 1111111111111111111111111111111111111111111111111111111111111111

Package: libc6
Version: 2.41-12
Architecture: amd64
Filename: pool/main/g/glibc/libc6_2.41-12_amd64.deb
Size: 2849
SHA256: 2222222222222222222222222222222222222222222222222222222222222222
"""


@cache
def tsk(name: str) -> Tsk:
    return Tsk.generate(user_id=f"{name} <{name}@example.org>")


def public(name: str) -> Cert:
    return tsk(name).extract_certificate()


def signed(text: bytes, name: str = "archive") -> bytes:
    return pysequoia.sign(tsk(name).signer(), text, mode=SignatureMode.CLEAR)


@dataclass
class Mirror:
    """An archive in a directory, with one suite."""

    root: Path
    index: bytes = lzma.compress(INDEX.encode())

    @property
    def url(self) -> str:
        return f"file:{self.root}"

    @property
    def suite(self) -> Path:
        return self.root / "dists/trixie"

    def release(self, *, codename: str = "trixie", by_hash: str = "yes") -> bytes:
        digest = hashlib.sha256(self.index).hexdigest()
        return (
            f"Origin: Debian\nSuite: stable\nCodename: {codename}\nVersion: 13.1\nDate: Sat, 06 Sep 2025 10:14:44 UTC\n"
            f"Valid-Until: Sat, 13 Sep 2025 10:14:44 UTC\nAcquire-By-Hash: {by_hash}\nSHA256:\n"
            f" {digest} {len(self.index)} main/binary-amd64/Packages.xz\n"
        ).encode()

    def write(self, inrelease: bytes, *, by_hash: bool = True) -> None:
        folder = self.suite / "main/binary-amd64"
        (folder / "by-hash/SHA256").mkdir(parents=True)
        name = f"by-hash/SHA256/{hashlib.sha256(self.index).hexdigest()}" if by_hash else "Packages.xz"
        (folder / name).write_bytes(self.index)
        (self.suite / "InRelease").write_bytes(inrelease)

    def archive(self, *accepted: str, suite: str = "trixie", arch: str = "amd64") -> DebianArchive:
        certs = [public(name) for name in accepted or ("archive",)]
        return DebianArchive([self.url], suite, arch, blobs=self.root / "blobs", events=Events(), accepted=certs)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path)


def test_the_certificates_that_ship_are_those_of_the_table() -> None:
    debian = [cert.fingerprint.upper() for cert in certificates()]
    security = [cert.fingerprint.upper() for cert in certificates("debian-security")]
    assert sorted(debian + security) == sorted(key.fingerprint for key in KEYS)
    assert len(debian) == 4
    purposes = {key.fingerprint: key.purpose for key in KEYS}
    for cert in [*certificates(), *certificates("debian-security")]:
        assert purposes[cert.fingerprint.upper()] in str(cert.user_ids[0])


def test_a_certificate_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    shutil.copytree(debian_archive._KEYS, tmp_path / "keys")
    victim = tmp_path / "keys" / f"{KEYS[0].fingerprint}.asc"
    victim.write_text(str(public("mallory")))
    with pytest.raises(SignatureError, match=public("mallory").fingerprint.upper()):
        certificates(folder=tmp_path / "keys")
    victim.write_text("rubbish")
    with pytest.raises(SignatureError, match="cannot be read as a certificate"):
        certificates(folder=tmp_path / "keys")


def test_a_good_signature_gives_the_signed_text() -> None:
    text = b"Suite: x\n- dashes\nend\n"
    assert verified(signed(text), [public("archive")], source="it") == text


def test_text_around_the_signed_text_is_dropped() -> None:
    data = signed(b"Suite: x\n") + b"\nSuite: evil\n"
    try:
        assert verified(data, [public("archive")], source="it") == b"Suite: x\n"
    except SignatureError:
        return  # to refuse it is as good


def test_a_tampered_text_is_refused() -> None:
    with pytest.raises(SignatureError, match="no valid signature"):
        verified(signed(b"Suite: x\n").replace(b"Suite: x", b"Suite: y"), [public("archive")], source="it")


def test_an_unknown_signer_is_named_with_those_who_would_be_accepted() -> None:
    with pytest.raises(SignatureError) as caught:
        verified(signed(b"x\n", "mallory"), [public("archive")], source="http://m/InRelease")
    assert caught.value.message.startswith("http://m/InRelease: ")
    assert "\n" not in caught.value.message
    assert public("archive").fingerprint.upper() in caught.value.hint
    named = [word.strip(",") for word in caught.value.message.split() if len(word.strip(",")) == 40]
    assert named, "the signer's fingerprint"
    assert public("archive").fingerprint.upper() not in named


def test_debians_keys_are_named_by_purpose() -> None:
    with pytest.raises(SignatureError) as caught:
        verified(signed(b"x\n"), certificates(), source="it")
    assert "Debian Archive Automatic Signing Key (13/trixie)" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"hello\n", b"<html>sign in</html>", b"Suite: stable\n"])
def test_what_is_not_signed_is_refused(data: bytes) -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        verified(data, [public("archive")], source="it")


def test_a_signature_made_after_its_key_expired_is_refused() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    expiring = public("archive").set_expiration(expiration=soon, certifier=tsk("archive").certifier())
    time.sleep(2)
    with pytest.raises(SignatureError, match="no valid signature"):
        verified(signed(b"x\n"), [expiring], source="it")


def test_a_release_is_read(mirror: Mirror) -> None:
    release = read_release(mirror.release(), source="it")
    assert (release.suite, release.codename, release.version, release.by_hash) == ("stable", "trixie", "13.1", True)
    assert release.date.isoformat() == "2025-09-06T10:14:44+00:00"
    assert release.files == {
        "main/binary-amd64/Packages.xz": (hashlib.sha256(mirror.index).hexdigest(), len(mirror.index))
    }


@pytest.mark.parametrize("text", [b"", b"Suite: x\n", b"Date: today\nSHA256:\n a b c\n"])
def test_what_is_no_release_file_is_refused(text: bytes) -> None:
    with pytest.raises(FetchError, match="it is no release file"):
        read_release(text, source="it")


@pytest.mark.parametrize("by_hash", [True, False])
@pytest.mark.parametrize("suite", ["trixie", "stable"])
def test_packages_come_by_way_of_the_signed_release(mirror: Mirror, by_hash: bool, suite: str) -> None:
    mirror.write(signed(mirror.release(by_hash="yes" if by_hash else "no")), by_hash=by_hash)
    if suite == "stable":
        mirror.suite.rename(mirror.root / "dists/stable")
    index = mirror.archive(suite=suite).packages()
    hello = index.get("hello")
    assert hello is not None
    assert hello["Version"] == "2.10-3"


def test_a_release_past_its_valid_until_is_accepted(mirror: Mirror) -> None:
    mirror.write(signed(mirror.release()))
    assert mirror.archive().release().codename == "trixie"


def test_an_index_that_differs_from_the_release_is_refused(mirror: Mirror) -> None:
    mirror.write(signed(mirror.release()))
    for path in mirror.suite.rglob("SHA256/*"):
        path.write_bytes(
            lzma.compress(INDEX.replace("hello", "hullo").encode()).ljust(len(mirror.index))[: len(mirror.index)]
        )
    with pytest.raises(FetchError, match=r"the package index of trixie: .*sha256") as caught:
        mirror.archive().packages()
    assert "mid-sync or tampered" in caught.value.hint


def test_an_unknown_signer_of_a_mirror_is_refused(mirror: Mirror) -> None:
    mirror.write(signed(mirror.release(), "mallory"))
    with pytest.raises(SignatureError, match="InRelease: no valid signature"):
        mirror.archive().packages()


def test_the_release_file_of_another_suite_is_refused(mirror: Mirror) -> None:
    mirror.write(signed(mirror.release(codename="bookworm").replace(b"stable", b"oldstable")))
    with pytest.raises(SignatureError, match="it is the release file of bookworm"):
        mirror.archive().release()


def test_an_architecture_that_is_not_there_is_named(mirror: Mirror) -> None:
    mirror.write(signed(mirror.release()))
    with pytest.raises(FetchError, match="no packages for vax in main"):
        mirror.archive(arch="vax").packages()


def test_the_next_mirror_is_asked_when_one_fails(mirror: Mirror, tmp_path: Path) -> None:
    mirror.write(signed(mirror.release()))
    archive = DebianArchive(
        [f"file:{tmp_path}/none", mirror.url],
        "trixie",
        "amd64",
        blobs=tmp_path / "blobs",
        events=Events(),
        accepted=[public("archive")],
    )
    assert len(archive.packages()) == 2
    with pytest.raises(FileGone):
        DebianArchive([f"file:{tmp_path}/none"], "trixie", "amd64", blobs=tmp_path, events=Events()).release()


def test_a_field_spans_its_continuation_lines() -> None:
    hello = PackagesIndex(INDEX.encode()).get("hello")
    assert hello is not None
    assert hello["Description"] == "greets\n and says: Package: nothing"
    assert hello["Size"] == "53084"
    with pytest.raises(PackageError, match="hello has no field Nonsense"):
        hello["Nonsense"]


def test_the_newest_of_two_versions_counts() -> None:
    for versions in (("1.9", "1.10"), ("1.10", "1.9"), ("2~rc1", "1.10")):
        text = "\n".join(f"Package: a\nVersion: {version}\n" for version in versions)
        found = PackagesIndex(text.encode()).get("a")
        assert found is not None
        assert found["Version"] == ("2~rc1" if "2~rc1" in versions else "1.10")


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=2, max_size=6)
values = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30)


@given(
    st.dictionaries(words, st.dictionaries(words.map(str.title), st.lists(values, min_size=1, max_size=3)), max_size=8)
)
def test_an_index_says_what_python_debian_says(stanzas: dict[str, dict[str, list[str]]]) -> None:
    paragraphs = []
    for name, fields in stanzas.items():
        lines = [f"Package: {name}"] + [
            f"{key}: " + "\n ".join(value) for key, value in fields.items() if key != "Package"
        ]
        paragraphs.append("\n".join(lines) + "\n")
    text = "\n".join(paragraphs).encode()
    index = PackagesIndex(text)
    theirs = {paragraph["Package"]: dict(paragraph) for paragraph in Packages.iter_paragraphs(text, use_apt_pkg=False)}
    assert len(index) == len(theirs)
    for name, expected in theirs.items():
        found = index.get(name)
        assert found is not None
        assert dict(found.fields) == expected


def index_of(*packages: str) -> PackagesIndex:
    """Each package as "name version; Field: value; …"."""
    stanzas = []
    for package in packages:
        head, *fields = package.split("; ")
        name, version = head.split()
        stanzas.append("\n".join([f"Package: {name}", f"Version: {version}", *fields]) + "\n")
    return PackagesIndex("\n".join(stanzas).encode())


def names_of(index: PackagesIndex, *roots: str, present: tuple[str, ...] = ()) -> list[str]:
    return [stanza.name for stanza in closure(index, roots, present)]


def test_a_closure_has_what_is_needed_and_no_more() -> None:
    index = index_of(
        "a0 1; Pre-Depends: b0; Depends: c0 (>= 1), d0:any", "b0 1", "c0 2", "d0 1; Recommends: e0", "e0 1", "f0 1"
    )
    assert names_of(index, "a0") == ["a0", "b0", "c0", "d0"]


def test_circles_end() -> None:
    assert names_of(index_of("a0 1; Depends: b0", "b0 1; Depends: a0"), "a0") == ["a0", "b0"]


def test_the_first_alternative_that_exists_is_taken() -> None:
    index = index_of("a0 1; Depends: none | c0 | d0", "c0 1", "d0 1")
    assert names_of(index, "a0") == ["a0", "c0"]


def test_an_alternative_that_is_chosen_already_is_preferred() -> None:
    index = index_of("a0 1; Depends: c0 | d0", "c0 1", "d0 1")
    assert names_of(index, "a0", "d0") == ["a0", "d0"]
    assert names_of(index, "a0", present=("d0",)) == ["a0"]


def test_a_version_that_does_not_suffice_is_passed_over() -> None:
    index = index_of("a0 1; Depends: c0 (>= 2) | d0 (<< 1:1)", "c0 1.9", "d0 3")
    assert names_of(index, "a0") == ["a0", "d0"]


def test_a_virtual_package_is_stood_for_by_its_most_important_provider() -> None:
    index = index_of(
        "a0 1; Depends: awk",
        "gawk 1; Provides: awk; Priority: optional",
        "mawk 1; Provides: other, awk; Priority: required",
        "original-awk 1; Provides: awk",
    )
    assert names_of(index, "a0") == ["a0", "mawk"]
    assert names_of(index, "a0", "gawk") == ["a0", "gawk"]


def test_only_versioned_provides_satisfy_versioned_dependencies() -> None:
    index = index_of(
        "a0 1; Depends: v0 (>= 2)", "b0 1; Provides: v0", "c0 1; Provides: v0 (= 1)", "d0 1; Provides: v0 (= 2)"
    )
    assert names_of(index, "a0") == ["a0", "d0"]


def test_what_nothing_satisfies_is_told_with_the_way_to_it() -> None:
    index = index_of("a0 1; Depends: b0", "b0 1; Depends: none (>= 3) | less")
    with pytest.raises(PackageError, match=r"a0 → b0 depends on none >=3 \| less"):
        closure(index, ["a0"])
    with pytest.raises(PackageError, match="no package nothing"):
        closure(index, ["nothing"])


def test_relationships_are_read() -> None:
    assert relations("a0, b0 (>= 1:2~x) | c0:any(<<3) ,") == [
        (Relation("a0"),),
        (Relation("b0", ">=", "1:2~x"), Relation("c0", "<<", "3")),
    ]
    assert relations("") == []
    with pytest.raises(PackageError, match="no"):
        relations("a0 (~ 3)")
