"""What zypper answers and refuses in our words, the words of its bootstrap, its metadata and its repositories' keys."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests.unit.hook_build import ELEMENTS

from dibble.errors import FetchError, FileGone, PackageError, SignatureError, UsageError
from dibble.packages import zypper_keys
from dibble.packages.bootstrap_words import bootstrap_request
from dibble.packages.rpm_database import database_of
from dibble.packages.rpm_metadata import content_words, locations
from dibble.packages.zypper import Zypper, _capability
from dibble.packages.zypper_answers import Reader, refusal, unreadable
from dibble.packages.zypper_metadata import Metadata

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

STREAM = """<?xml version='1.0'?>
<stream>
<message type="info">Loading repository data...</message>
{}
</stream>"""
SUMMARY = """<install-summary packages-to-change="4">
<to-install>
<solvable type="package" name="file" edition="1:5.46-5" arch="x86_64" repository="Main" summary="a &amp; b">
<description>many
lines</description></solvable>
<solvable type="pattern" name="base" edition="16.0-1" arch="noarch" repository="Main"/>
</to-install>
<to-upgrade><solvable type="package" name="bash" edition="5.3-1" arch="x86_64" edition-old="5.2-1" repository="Main"/>
</to-upgrade>
<to-downgrade><solvable type="package" name="sed" edition="4-1" arch="x86_64" repository="Main"/></to-downgrade>
<to-remove><solvable type="package" name="ed" edition="1-1" arch="x86_64"/></to-remove>
</install-summary>
<progress id="install-resolvable" name="(1/2) Installing: file-5.46-5.x86_64" value="50"/>
<progress id="install-resolvable" name="(1/2) Installing: file-5.46-5.x86_64" done="1"/>
<message type="warning">%post(file-5.46-5.x86_64) scriptlet failed, exit status 3</message>"""
SIGNED = """<message type="info">New key received:
&lt;key-name&gt;Somebody &amp;lt;a@b&amp;gt;&lt;/key-name&gt;&lt;key-fingerprint&gt;ABCD1234&lt;/key-fingerprint&gt;
</message><message type="error">Repository 'oss' is invalid.</message>"""


def read(text: str, status: str = "") -> Reader:
    reader = Reader()
    for line in STREAM.format(text).splitlines():
        reader(line)
    assert reader.is_whole, status
    return reader


def test_a_summary_tells_which_packages_come_and_go_and_patterns_are_none_of_them() -> None:
    answer = read(SUMMARY).answer
    assert [(one.name, one.edition, one.repository) for one in answer.coming(new=True)] == [
        ("file", "1:5.46-5", "Main")
    ]
    assert [one.name for one in answer.coming(new=False)] == ["bash", "sed"]
    assert [one.name for one in answer.going] == ["ed"]
    assert answer.failed_scriptlets == ["%post(file-5.46-5.x86_64) scriptlet failed, exit status 3"]


def test_lines_are_passed_on_as_they_come_and_packages_counted_when_they_are_done() -> None:
    lines: list[str] = []
    counts: list[int] = []
    reader = Reader(lines.append, counts.append)
    for line in STREAM.format(SUMMARY).splitlines():
        reader(line)
    assert lines[:2] == ["Loading repository data...", "(1/2) Installing: file-5.46-5.x86_64"]
    assert counts == [1]


def test_an_answer_that_breaks_off_is_not_whole() -> None:
    for text in ("<?xml version='1.0'?>\n<stream>\n<message>", "terminate called\n"):
        reader = Reader()
        for line in text.splitlines():
            reader(line)
        assert not reader.is_whole


def test_a_list_of_repositories_has_their_mirrors_and_keys() -> None:
    text = (
        '<repo-list><repo alias="oss" name="Main" enabled="1" gpgcheck="1" gpgkey="http://m/k"><url>http://m/</url>'
        '<url>http://n</url></repo><repo alias="off" name="Off" enabled="0" gpgcheck="0"/></repo-list>'
    )
    main, off = read(text).answer.repositories
    assert (main.alias, main.name, main.urls, main.keys) == ("oss", "Main", ("http://m", "http://n"), ("http://m/k",))
    assert main.enabled
    assert main.checked
    assert not off.enabled
    assert not off.checked


def test_a_refusal_names_what_it_is_about() -> None:
    missing = refusal(104, read("""<message type="error">No provider of 'vim' found.</message>""").answer)
    assert str(missing).startswith("no repository has a package vim")
    assert missing.hint
    conflict = refusal(4, read("""<message type="error">Problem: nothing provides x</message>""").answer)
    assert isinstance(conflict, PackageError)
    assert "Problem: nothing provides x" in str(conflict)
    assert "zypper addrepo" in refusal(6, read("").answer).hint


def test_metadata_that_another_key_has_signed_are_refused_with_both_keys() -> None:
    error = unreadable(read(SIGNED).answer, {"FFFF": "Ours"}, "give the key")
    assert isinstance(error, SignatureError)
    assert "the key ABCD1234 (Somebody" in str(error)
    assert "its keys are: FFFF (Ours)" in str(error)
    assert error.hint == "give the key"
    unsigned = read("<prompt><text>File 'repomd.xml' from repository 'oss' is unsigned, continue?</text></prompt>")
    assert "not signed" in str(unreadable(unsigned.answer, {}, ""))
    gone = unreadable(read("""<message type="error">File not found</message>""").answer, {}, "")
    assert not isinstance(gone, SignatureError)
    assert "File not found" in str(gone)


def test_the_words_of_a_bootstrap_become_a_request() -> None:
    words = ["zypper", "--releasever", "16.0", "--arch", "x86_64", "--include", "bash", "--fingerprint", "ab cd"]
    request = bootstrap_request([*words, "--repository", "oss=>http://m/oss", "--key", "http://m/key"])
    assert (request.suite, request.include, request.keys) == ("16.0", ("bash",), ("http://m/key",))
    assert request.fingerprints == ("ABCD",)
    assert "baseurl=http://m/oss\n" in request.sources[0]
    with pytest.raises(UsageError, match="--repository"):
        bootstrap_request(words)
    with pytest.raises(UsageError, match="NAME=>URL"):
        bootstrap_request([*words, "--repository", "http://m/oss"])


def test_a_manager_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(PackageError, match=r'"apk".*only apt, dnf, pacman, portage and zypper'):
        bootstrap_request(["apk"])


def test_a_pattern_is_asked_for_as_what_its_package_provides() -> None:
    assert _capability("pattern:base") == "pattern() = base"
    assert _capability("vim") == "vim"


def test_a_root_with_zypper_and_packages_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    (tmp_path / "etc/zypp").mkdir(parents=True)
    assert not Zypper.owns(tmp_path)
    (tmp_path / "usr/lib/sysimage/rpm/Packages.db").touch()
    assert Zypper.owns(tmp_path)
    assert database_of(tmp_path) == "/usr/lib/sysimage/rpm"
    (tmp_path / "etc/zypp").rmdir()
    assert not Zypper.owns(tmp_path), "a system without zypper"


# --- metadata

REPOMD = """<repomd xmlns="http://linux.duke.edu/metadata/repo"><tags><content>{words}</content></tags>
<data type="other"><location href="repodata/o"/></data>
<data type="primary"><location href="repodata/primary.xml{ending}"/></data></repomd>"""
PRIMARY = """<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="3">
{}</metadata>"""
PACKAGE = """<package type="rpm">
  <name>{name}</name><arch>x86_64</arch><version epoch="{epoch}" ver="1" rel="{release}"/>
  <checksum type="{kind}" pkgid="YES">{name}-sum</checksum><summary>a &lt;package&gt;</summary>
  <size package="12" installed="3" archive="4"/><location href="x86_64/{name}-{release}.rpm"/>
  <format><rpm:license>GPL</rpm:license></format></package>
"""


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_places_of_the_packages_that_are_wanted_are_read_and_of_no_others(tmp_path: Path, ending: str) -> None:
    rows = [("bash", 0, 1, "sha256"), ("bash", 0, 2, "sha256"), ("file", 1, 1, "sha512"), ("sed", 0, 1, "sha256")]
    text = PRIMARY.format("".join(PACKAGE.format(name=n, epoch=e, release=r, kind=k) for n, e, r, k in rows)).encode()
    compressed = {"": text, ".gz": gzip.compress(text), ".zst": zstandard.ZstdCompressor().compress(text)}
    packed = compressed[ending]
    (tmp_path / "repodata").mkdir()
    (tmp_path / "repodata/repomd.xml").write_text(REPOMD.format(words="pool", ending=ending))
    (tmp_path / f"repodata/primary.xml{ending}").write_bytes(packed)
    bash, file = ("bash", "1-2", "x86_64"), ("file", "1:1-1", "x86_64")
    found = locations(tmp_path, {bash, file, ("none", "1-1", "x86_64")})
    assert set(found) == {bash, file}
    assert (found[bash].path, found[bash].sha256, found[bash].size) == ("x86_64/bash-2.rpm", "bash-sum", 12)
    assert found[file].sha256 == "", "another kind of digest is none"
    (tmp_path / f"repodata/primary.xml{ending}").write_bytes(packed[: len(packed) // 2])
    if ending == ".gz":
        with pytest.raises(FetchError, match=r"primary\.xml"):
            locations(tmp_path, {bash})


def test_offline_without_metadata_is_an_error_with_a_mend(tmp_path: Path) -> None:
    metadata = Metadata(tmp_path / "zypper", offline=True, max_age_s=0)
    with pytest.raises(FetchError) as caught:
        metadata.copy((), (), tmp_path / "goal", lambda _: None)
    assert "--offline" in caught.value.hint


def test_metadata_are_asked_for_once_in_the_highest_age(tmp_path: Path) -> None:
    asked: list[str] = []

    def refresh(cache: Path) -> None:
        asked.append(cache.name)
        (cache / "raw").mkdir(exist_ok=True)

    for age in (60, 60, 0):
        metadata = Metadata(tmp_path / "zypper", offline=False, max_age_s=age)
        assert (metadata.copy((), ("KEY",), tmp_path / "goal", refresh) / "raw").is_dir()
    assert len(asked) == 2
    Metadata(tmp_path / "zypper", offline=False, max_age_s=60).copy((), ("OTHER",), tmp_path / "goal", refresh)
    assert len(set(asked)) == 2, "what was checked with another key is asked for again"


# --- keys

KEY = next((ELEMENTS.parent.parent / "packages/keys").glob("4D64FEC*.asc"))
FINGERPRINT = "4D64FEC119C2029067D6E791F8D2585B8783D481"


def answers(monkeypatch: pytest.MonkeyPatch, words: str, files: dict[str, bytes]) -> None:
    files = {"repodata/repomd.xml": REPOMD.format(words=words, ending="").encode(), **files}

    def get_small(url: str, **_: object) -> bytes:
        name = url.removeprefix("http://m/")
        if name not in files:
            raise FileGone(f"{url} is gone")
        return files[name]

    monkeypatch.setattr(zypper_keys, "get_small", get_small)


def test_of_the_keys_that_a_repository_publishes_those_count_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gpg-pubkey-8783d481-1.asc?fpr={FINGERPRINT}"
    answers(monkeypatch, name, {"gpg-pubkey-8783d481-1.asc": KEY.read_bytes()})
    assert "BEGIN PGP PUBLIC KEY" in zypper_keys.published_keys("http://m", [FINGERPRINT], "")
    answers(monkeypatch, "pool", {"repodata/repomd.xml.key": KEY.read_bytes()})
    assert "BEGIN PGP PUBLIC KEY" in zypper_keys.published_keys("http://m", [FINGERPRINT], "")
    with pytest.raises(SignatureError, match=f"AAAA; it publishes: {FINGERPRINT} .Debian"):
        zypper_keys.published_keys("http://m", ["AAAA"], "")


def test_a_key_that_only_claims_a_fingerprint_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "AD485664E901B867051AB15F35A2F86E29B700A4"
    answers(monkeypatch, f"gpg-pubkey-x.asc?fpr={wanted}", {"gpg-pubkey-x.asc": KEY.read_bytes()})
    with pytest.raises(SignatureError, match=wanted):
        zypper_keys.published_keys("http://m", [wanted], "")


def test_metadata_that_are_no_xml_are_an_error() -> None:
    with pytest.raises(FetchError, match=r"repomd\.xml"):
        content_words(b"<html>")
