"""What Portage prints and mirrors of Gentoo have, as it is read; signatures, with real keys; and downloads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pysequoia
import pytest
from pysequoia import SignatureMode, Tsk, sign
from tests.serving import served
from tests.unit import needed
from tests.unit.hook_build import SYSTEM

from dibble.errors import FetchError, FileGone, PackageError, SignatureError, UsageError
from dibble.events import Events
from dibble.packages import portage_answers as answers
from dibble.packages.distfiles import Distfile, Distfiles
from dibble.packages.fetch import blob_path
from dibble.packages.portage import Portage
from dibble.packages.portage_mirror import digests_of, listed_stages
from dibble.packages.signed import Signers, refusal
from dibble.packages.small_files import SmallFiles
from dibble.sandbox.process import run
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

PRETENDED = """
These are the packages that would be merged, in order:

Calculating dependencies ... done!

[binary  N g   ] net-libs/libpcap-1.10.5-1::gentoo  USE="ipv6 -dbus" 0 KiB
[ebuild     U  ] app-text/tree-2.2.1-r2::gentoo [2.1.0::gentoo] 40 KiB
[ebuild  NS    ] dev-lang/python-3.13.5_p1::gentoo [3.12.1::gentoo]
[blocks b      ] <sys-apps/foo-1 ("<sys-apps/foo-1" is soft blocking app-text/tree-2.2.1-r2)

Total: 3 packages
"""


def test_the_packages_that_emerge_will_install_are_read_with_version_and_number() -> None:
    rows = answers.rows_of(PRETENDED)
    assert [(row.name, row.version, row.build, row.is_binary, row.is_new) for row in rows] == [
        ("net-libs/libpcap", "1.10.5", "1", True, True),
        ("app-text/tree", "2.2.1-r2", "", False, False),
        ("dev-lang/python", "3.13.5_p1", "", False, True),
    ]


def test_packages_that_exclude_each_other_are_an_error() -> None:
    with pytest.raises(PackageError, match="exclude each other"):
        answers.rows_of("[blocks B      ] sys-apps/foo (is hard blocking sys-apps/bar)\n")


def test_the_packages_that_nothing_needs_are_read() -> None:
    text = " app-a/b\n    selected: 1\n\nAll selected packages: =app-a/b-1 =app-a/c-2-r1\n\nNumber to remove: 2\n"
    assert answers.removed_in(text) == [("app-a/b", "1"), ("app-a/c", "2-r1")]
    assert answers.removed_in("No packages selected for removal by depclean\n") == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            'emerge: there are no ebuilds to satisfy "app-misc/nothere".\n\nemerge: Maybe you meant app-misc/a?\n',
            "has no app-misc/nothere; similar: app-misc/a",
        ),
        ('!!! All ebuilds that could satisfy "app-a/b" have been masked.\n', "all versions of app-a/b are masked"),
        ("!!! GnuPG verification failed\n", "not signed by a key that the target trusts"),
        ("emerge: error: unrecognized arguments: --x\n", "emerge ended with status 2\n    emerge: error"),
    ],
)
def test_a_refusal_of_emerge_is_told_in_one_sentence(output: str, message: str) -> None:
    assert message in answers.refusal(output, 2).message


def test_binary_packages_are_found_in_the_list_and_distfiles_in_the_manifest() -> None:
    (entry,) = answers.index_entries("ARCH: amd64\nPACKAGES: 1\n\nBUILD_ID: 1\nCPV: app-a/b-1\nPATH: b-1-1.gpkg.tar\n")
    assert entry == {"BUILD_ID": "1", "CPV": "app-a/b-1", "PATH": "b-1-1.gpkg.tar"}
    index = "ARCH: amd64\nTTL: 5\n\nBUILD_ID: 1\nCPV: app-a/b-1\n"
    assert answers.as_new(index, 100.2).startswith("ARCH: amd64\nTTL: 86400\nDOWNLOAD_TIMESTAMP: 100\n\nBUILD_ID: 1\n")
    manifest = "DIST a.tar.gz 12 BLAKE2B aa SHA512 bb\nEBUILD a.ebuild 3 BLAKE2B cc SHA512 dd\n"
    assert answers.manifest_entries(manifest) == {"a.tar.gz": (12, {"BLAKE2B": "aa", "SHA512": "bb"})}
    said = "\nhttp://m/distfiles/dc/a.tar.gz https://h/a.tar.gz \n\n>>> Downloading 'http://m/layout.conf'\n"
    assert answers.uris_in(said) == {"a.tar.gz": ("http://m/distfiles/dc/a.tar.gz", "https://h/a.tar.gz")}


def test_repositories_of_binary_packages_are_those_of_the_target(tmp_path: Path) -> None:
    place = tmp_path / "etc/portage/binrepos.conf"
    place.mkdir(parents=True)
    (place / "a.conf").write_text("[DEFAULT]\nverify-signature = true\n[one]\nsync-uri = http://m:80/x/y/\n")
    (place / "b.conf").write_text("[two]\nsync-uri = https://n/z\nlocation = /var/two\n[three]\npriority = 1\n")
    one, two = answers.binhosts(tmp_path)
    assert (one.url, one.location, one.index) == (
        "http://m:80/x/y",
        "/var/cache/binhost/one",
        "var/cache/edb/binhost/m/x/y/Packages",
    )
    assert (two.name, two.location) == ("two", "/var/two")
    assert answers.binhosts(tmp_path / "empty") == []


def test_installed_packages_and_profiles_are_found(tmp_path: Path) -> None:
    for name in ("app-a/font-100dpi-1.0.4-r1", "app-a/b-2", "app-a/-MERGING-c-3"):
        (tmp_path / "var/db/pkg" / name).mkdir(parents=True)
    assert answers.versions(tmp_path) == [("app-a/b", "2"), ("app-a/font-100dpi", "1.0.4-r1")]
    profiles = tmp_path / "var/db/repos/gentoo/profiles"
    profiles.mkdir(parents=True)
    (profiles / "profiles.desc").write_text("# arch dir status\namd64 a/b stable\narm64 c/d dev\n")
    assert answers.profiles_of(tmp_path, "arm64") == ["c/d"]


def test_lists_of_stages_and_of_digests_are_read() -> None:
    text = (
        "# Latest as of today\n# ts=1\n"
        "20261101T170000Z/stage3-amd64-nomultilib-openrc-20261101T170000Z.tar.xz 300\n"
        "20261102T170000Z/stage3-amd64-systemd-20261102T170000Z.tar.xz 301\n"
    )
    assert [(one.name, one.version, one.size) for one in listed_stages(text)] == [
        ("stage3-amd64-nomultilib-openrc", "20261101T170000Z", 300),
        ("stage3-amd64-systemd", "20261102T170000Z", 301),
    ]
    digests = "# BLAKE2B HASH\naa  s.tar.xz\n# SHA512 HASH\nbb  s.tar.xz\ncc  s.tar.xz.CONTENTS.gz\n"
    assert digests_of(digests, "s.tar.xz") == {"BLAKE2B": "aa", "SHA512": "bb"}
    assert digests_of("dd  s.tar.xz\n", "s.tar.xz", "SHA256") == {"SHA256": "dd"}


def test_the_words_of_a_bootstrap_are_read_and_a_missing_one_is_named() -> None:
    words = ["portage", "--stage", "s", "--arch", "amd64", "--profile", "p", "--mirror", "http://m", "--key", "k"]
    request = Portage.bootstrap_request([*words, "--fingerprint", "13eb bdbe"])
    assert (request.suite, request.mirrors, request.keys, request.fingerprints) == (
        "s",
        ("http://m",),
        ("k",),
        ("13EBBDBE",),
    )
    with pytest.raises(UsageError, match="--key"):
        Portage.bootstrap_request(words[:-2])


# --- signatures


def signers(keys: list[Tsk], place: Path, *fingerprints: str) -> Signers:
    texts = [str(key.extract_certificate()).encode() for key in keys]
    return Signers(texts, fingerprints, place, HostToolbox(), hint="give the key")


@needed.programs("gpgv")
def test_what_is_signed_is_read_and_another_key_or_none_is_named(tmp_path: Path) -> None:
    good, other = (Tsk.generate(user_id=f"{name} <{name}@example.org>") for name in ("good", "other"))
    trusted = signers([good], tmp_path / "keys")
    text = sign(good.signer(), b"some text\n", mode=SignatureMode.CLEAR)
    assert trusted.text(text, "a.txt").strip() == "some text"
    (tmp_path / "file").write_bytes(b"data")
    trusted.check(tmp_path / "file", sign(good.signer(), b"data", mode=SignatureMode.DETACHED), "file")

    fingerprint = other.extract_certificate().fingerprint.upper()
    mine = good.extract_certificate().fingerprint.upper()
    by_other = sign(other.signer(), b"some text\n", mode=SignatureMode.CLEAR)
    with pytest.raises(SignatureError, match="not trusted") as caught:
        trusted.text(by_other, "a.txt")
    issuer = pysequoia.Sig.from_bytes(sign(other.signer(), b"x", mode=SignatureMode.DETACHED)).issuer_fingerprint
    assert str(issuer).upper() in str(caught.value)
    assert f"{mine} (good <good@example.org>)" in str(caught.value)
    with pytest.raises(SignatureError, match="not signed"):
        trusted.text(b"some text\n", "a.txt")
    with pytest.raises(SignatureError, match="does not fit"):
        trusted.text(text.replace(b"some text", b"same text"), "a.txt")
    with pytest.raises(SignatureError, match=f"none of these keys is there: {fingerprint}; there are: {mine}"):
        signers([good], tmp_path / "keys", fingerprint)
    assert list(signers([good, other], tmp_path / "keys", fingerprint).keys) == [fingerprint]


@needed.programs("gpg", "gpgv")
def test_a_key_that_has_expired_does_not_count(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    def gpg(*words: str, stdin: bytes | None = None) -> bytes:
        options = [
            "--homedir",
            str(home),
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--faked-system-time",
            "20200101T000000!",
        ]
        file = tmp_path / "output"
        with file.open("wb") as output:
            run(["gpg", *options, *words], env={"PATH": SYSTEM}, stdin=stdin, stdout_file=output)
        return file.read_bytes()

    gpg("--quick-generate-key", "Old <old@example.org>", "ed25519", "sign", "1d")
    text = gpg("--clearsign", stdin=b"some text\n")
    trusted = Signers([gpg("--export")], (), tmp_path / "keys", HostToolbox(), hint="give the key")
    run(["gpgconf", "--homedir", str(home), "--kill", "all"], env={"PATH": SYSTEM})
    with pytest.raises(SignatureError, match="is by a key that has expired"):
        trusted.text(text, "a.txt")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("NEWSIG\nGOODSIG 1 x\nVALIDSIG AA 2026 0 4 0 1 8 00 BB", ""),
        ("NEWSIG\nEXPSIG 1 x\nVALIDSIG AA 2026 0 4 0 1 8 00 BB", ": its signature, by BB, has expired"),
        (
            "NEWSIG\nREVKEYSIG 1 x\nVALIDSIG AA 2026 0 4 0 1 8 00 BB",
            ": its signature, by BB, is by a key that was withdrawn",
        ),
        ("NEWSIG\nVALIDSIG AA 2026 0 4 0 1 8 00 CC", " is signed with the key CC, which is not trusted"),
        ("NEWSIG\nERRSIG 77 1 8 01 1 9 -\nNEWSIG\nVALIDSIG AA 0 0 4 0 1 8 00 BB", ""),
        ("NEWSIG\nERRSIG 77 1 8 01 1 9 -", " is signed with the key 77, which is not trusted"),
        ("NODATA 1", " is not signed"),
    ],
)
def test_what_gpgv_says_of_a_signature_is_told_as_it_is(status: str, said: str) -> None:
    lines = "".join(f"[GNUPG:] {line}\n" for line in status.splitlines())
    assert refusal(lines, ["BB"]) == said


# --- downloads


def test_a_distfile_is_a_blob_goes_on_where_it_broke_and_is_fetched_once(tmp_path: Path) -> None:
    data = b"0123456789" * 1000
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.tar").write_bytes(data)
    digests = {"SHA512": hashlib.sha512(data).hexdigest(), "BLAKE2B": hashlib.blake2b(data).hexdigest(), "NEW": "0"}
    files = Distfiles(tmp_path / "state", tmp_path / "blobs", Events(), offline=False)
    with served(tmp_path / "web") as url:
        wanted = Distfile("a.tar", (f"{url}/gone", f"{url}/a.tar"), len(data), digests)
        (tmp_path / "state").mkdir()
        part = tmp_path / f"state/.{wanted.key}.part"
        part.write_bytes(b"wrong" + data[5:2000])
        path = files.fetch([wanted])["a.tar"]
        assert path == blob_path(tmp_path / "blobs", hashlib.sha256(data).hexdigest())
        assert path.read_bytes() == data

        with pytest.raises(FetchError, match="has the SHA512"):
            files.fetch([Distfile("a.tar", (f"{url}/a.tar",), len(data), {"SHA512": "00"})])
        with pytest.raises(FetchError, match="10000 bytes where 3 are expected"):
            files.fetch([Distfile("a.tar", (f"{url}/a.tar",), 3)])
        with pytest.raises(FileGone):
            files.fetch([Distfile("b.tar", (f"{url}/b.tar",))])
    offline = Distfiles(tmp_path / "state", tmp_path / "blobs", Events(), offline=True)
    assert offline.fetch([wanted])["a.tar"] == path
    with pytest.raises(FetchError, match="--offline"):
        offline.fetch([Distfile("c.tar", ("http://nowhere/c.tar",))])


def test_small_files_are_kept_for_a_while_and_offline(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    file = tmp_path / "web/list.txt"
    file.write_text("old")
    with served(tmp_path / "web") as server:
        url = f"{server}/list.txt"
        small = SmallFiles(tmp_path / "state", offline=False, max_age_s=3600)
        assert small.get(url) == b"old"
        assert small.tokens[url].startswith("modified ")
        file.write_text("newer")
        assert small.get(url) == b"old"
        assert SmallFiles(tmp_path / "state", offline=False, max_age_s=0).get(url) == b"newer"
    offline = SmallFiles(tmp_path / "state", offline=True, max_age_s=0)
    assert offline.get(url) == b"newer"
    with pytest.raises(FetchError, match="--offline"):
        offline.get(f"{server}/other")
