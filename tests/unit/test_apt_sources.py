"""Source lists, keys and settings: what a set of sources is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from debian.deb822 import Deb822
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import PackageError, SignatureError
from dibble.packages.apt_sources import (
    SourceSet,
    bootstrap_sources,
    foreign_architectures,
    foreign_hooks,
    target_sources,
)
from dibble.packages.apt_state import list_name
from dibble.packages.base import BootstrapRequest
from dibble.packages.deb822 import paragraphs
from dibble.packages.debian_sources import (
    ARCHIVE,
    SECURITY,
    HostMirrors,
    Source,
    codename,
    host_mirrors,
    parse_deb822,
    parse_list,
    read_sources,
)
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
SOURCES = st.builds(
    Source,
    uris=st.lists(WORD.map(lambda word: f"http://{word}/debian"), min_size=1, max_size=2).map(tuple),
    suites=st.lists(WORD, min_size=1, max_size=3).map(tuple),
    components=st.lists(WORD, min_size=1, max_size=3).map(tuple),
    signed_by=st.one_of(
        st.just(""), WORD.map(lambda word: f"/keys/{word}.gpg"), st.just("-----BEGIN\n\nabc\n=de\n-----END")
    ),
    fields=st.lists(
        st.sampled_from([("Trusted", "yes"), ("Architectures", "amd64 i386"), ("By-Hash", "force")]), unique=True
    ).map(tuple),
)


@given(st.lists(SOURCES, max_size=4))
def test_written_sources_are_read_back_as_they_were(sources: list[Source]) -> None:
    assert parse_deb822("\n".join(source.stanza() for source in sources)) == sources


def test_a_line_of_options_components_and_comments_is_read() -> None:
    text = """
        # deb http://commented.example/debian trixie main
        deb [arch=amd64,i386 signed-by="/keys/a b.gpg" trusted=yes] http://m.example/debian trixie main contrib # x
        deb-src http://m.example/debian trixie main
        deb file:/srv/repo ./
    """
    first, second = parse_list(text)
    assert first == Source(
        ("http://m.example/debian",),
        ("trixie",),
        ("main", "contrib"),
        "/keys/a b.gpg",
        (("Architectures", "amd64 i386"), ("Trusted", "yes")),
    )
    assert second == Source(("file:/srv/repo",), ("./",))
    assert second.is_local
    assert not first.is_local


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dep http://m.example/debian trixie main", "this is no apt source"),
        ("deb http://m.example/debian trixie", "has a URI, a suite and components"),
        ("deb http://m.example/debian ./ main", "has a URI, a suite and components"),
        ("deb [sign-by=/a] http://m.example/debian trixie main", 'no option "sign-by"'),
    ],
)
def test_a_bad_line_is_named_with_its_number(line: str, message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        parse_list(f"# first\n{line}\n", "a.list")
    assert (caught.value.where.file, caught.value.where.line) == ("a.list", 2)


def test_disabled_and_source_only_paragraphs_bring_nothing() -> None:
    text = """\
Types: deb deb-src
URIs: http://m.example/debian http://n.example/debian
Suites: trixie trixie-updates
Components: main
# a comment
Signed-By: /k.gpg

Enabled: no
Types: deb
URIs: http://off.example
Suites: x
Components: y

Types: deb-src
URIs: http://m.example/debian
Suites: trixie
Components: main
"""
    (source,) = parse_deb822(text)
    assert source.uris == ("http://m.example/debian", "http://n.example/debian")
    assert source.signed_by == "/k.gpg"


def test_a_paragraph_without_suites_is_named_with_its_line() -> None:
    with pytest.raises(PackageError, match="lacks the field Suites") as caught:
        parse_deb822("\n\nTypes: deb\nURIs: http://m.example\n", "b.sources")
    assert caught.value.where.line == 3


def test_only_files_that_apt_would_read_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://one.example/debian trixie main\n")
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "b.list").write_text("deb http://three.example/debian trixie main\n")
    (parts / "a.sources").write_text("Types: deb\nURIs: http://two.example/debian\nSuites: trixie\nComponents: main\n")
    (parts / "c.list.save").write_text("nonsense")
    (parts / "d e.list").write_text("nonsense")
    hosts = [source.uris[0] for source in read_sources(tmp_path)]
    assert hosts == ["http://one.example/debian", "http://two.example/debian", "http://three.example/debian"]


def test_the_host_mirrors_are_those_of_debian_and_of_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb http://vendor.example/debian nodistro main\n"
        "deb file:/srv/debian trixie main\n"
        "deb http://vendor.example/other trixie main\n"
        "deb http://mirror.example/debian/ bookworm main\n"
        "deb http://second.example/debian bookworm main\n"
        "deb http://mirror.example/debian-security bookworm-security main\n"
    )
    assert host_mirrors(tmp_path) == HostMirrors(
        "http://mirror.example/debian", "http://mirror.example/debian-security"
    )


def test_without_readable_host_sources_the_defaults_are_taken(tmp_path: Path) -> None:
    assert host_mirrors(tmp_path) == HostMirrors(ARCHIVE, SECURITY)
    (tmp_path / "sources.list").write_text("nonsense\n")
    assert host_mirrors(tmp_path) == HostMirrors(ARCHIVE, SECURITY)


def test_a_codename_comes_from_the_release_file_before_the_table() -> None:
    assert codename("stable") == "trixie"
    assert codename("stable", b"Suite: stable\nCodename: forky\n") == "forky"
    assert codename("noble") == "noble"


def test_links_are_followed_inside_the_root_only(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "up").symlink_to("../../../../etc")
    (tmp_path / "loop").symlink_to("loop")
    assert resolve_inside(tmp_path, "/lib/x") == tmp_path / "usr/lib/x"
    assert resolve_inside(tmp_path, "up/passwd") == tmp_path / "etc/passwd"
    assert resolve_inside(tmp_path, "loop/a") == tmp_path / "loop/a"
    assert resolve_inside(tmp_path, "/usr/../lib/./b") == tmp_path / "usr/lib/b"


def _target(root: Path) -> None:
    (root / "etc/apt/trusted.gpg.d").mkdir(parents=True)
    (root / "etc/apt/preferences.d").mkdir()
    (root / "usr/share/keyrings").mkdir(parents=True)
    (root / "usr/share/keyrings/real.gpg").write_bytes(b"\x99key")
    (root / "usr/share/keyrings/k.gpg").symlink_to("/usr/share/keyrings/real.gpg")
    (root / "etc/apt/trusted.gpg.d/t.asc").write_bytes(b"armoured")
    (root / "etc/apt/trusted.gpg.d/t.gpg~").write_bytes(b"backup")
    (root / "etc/apt/preferences.d/pin.pref").write_text("Package: *\nPin: release a=x\nPin-Priority: 1\n")
    (root / "etc/apt/sources.list").write_text(
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://m.example/debian trixie main\n"
        "deb http://m.example/debian trixie-updates main\n"
    )


def test_the_targets_keys_and_pins_are_taken_by_content(tmp_path: Path) -> None:
    _target(tmp_path)
    found = target_sources(tmp_path, "amd64", (), ['APT::Install-Recommends "0";', 'DPkg::Post-Invoke:: "rm -rf /";'])
    ((name, data),) = found.keys
    assert data == b"\x99key"
    assert [source.signed_by for source in found.sources] == [name, ""]
    assert found.trusted == (("t.asc", b"armoured"),)
    assert found.preferences[0][0] == "pin.pref"
    assert found.settings == ('APT::Install-Recommends "0";',)
    assert found.places == (("http://m.example/debian", "trixie"), ("http://m.example/debian", "trixie-updates"))


def test_every_part_of_a_set_changes_its_digest(tmp_path: Path) -> None:
    _target(tmp_path)
    digests = {target_sources(tmp_path, "amd64", (), ()).digest, target_sources(tmp_path, "arm64", (), ()).digest}
    digests.add(target_sources(tmp_path, "amd64", ("i386",), ()).digest)
    digests.add(target_sources(tmp_path, "amd64", (), ['APT::Install-Recommends "0";']).digest)
    for name in ("usr/share/keyrings/real.gpg", "etc/apt/trusted.gpg.d/t.asc", "etc/apt/preferences.d/pin.pref"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"x")
        digests.add(target_sources(tmp_path, "amd64", (), ()).digest)
    (tmp_path / "etc/apt/sources.list").write_text("deb http://m.example/debian trixie main\n")
    digests.add(target_sources(tmp_path, "amd64", (), ()).digest)
    assert len(digests) == 8


def test_a_missing_keyring_says_how_to_give_one(tmp_path: Path) -> None:
    request = BootstrapRequest("trixie", "amd64", ("http://m.example/debian",), keyrings=(tmp_path / "none.gpg",))
    with pytest.raises(SignatureError, match=r"none\.gpg does not exist") as caught:
        bootstrap_sources(request, tmp_path)
    assert "DIB_APT_KEYRING" in caught.value.hint


def test_a_bootstrap_trusts_the_given_keyring_alone_and_unsigned_only_when_told(tmp_path: Path) -> None:
    (tmp_path / "k.gpg").write_bytes(b"\x99key")
    line = "deb [trusted=yes] http://n.example/debian x main"
    signed = bootstrap_sources(
        BootstrapRequest("trixie", "amd64", ("http://m.example/debian",), keyrings=(tmp_path / "k.gpg",)), tmp_path
    )
    assert signed.sources[0].signed_by == signed.keys[0][0]
    assert not signed.is_insecure
    unsigned = bootstrap_sources(
        BootstrapRequest("trixie", "amd64", ("http://m.example/debian",), unsigned=True, sources=(line,)), tmp_path
    )
    assert unsigned.is_insecure
    assert dict(unsigned.sources[0].fields) == {"Trusted": "yes"}
    assert unsigned.places[1] == ("http://n.example/debian", "x")


@pytest.mark.parametrize(("value", "insecure"), [("0", False), ("", False), ("no", False), ("1", True), ("yes", True)])
def test_an_apt_that_may_do_without_signatures_but_is_told_not_to_is_no_danger(value: str, insecure: bool) -> None:
    for name in ("Acquire::AllowInsecureRepositories", "APT::Get::AllowUnauthenticated"):
        assert SourceSet("amd64", (), settings=(f'{name} "{value}";',)).is_insecure is insecure


def test_an_embedded_key_becomes_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list.d/v.sources").write_text(
        "Types: deb\nURIs: http://v.example\nSuites: s\nComponents: c\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    found = target_sources(tmp_path, "amd64", (), ())
    ((name, data),) = found.keys
    assert name.endswith(".asc")
    assert data == b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    assert found.sources[0].signed_by == name


def test_foreign_architectures_and_hooks_of_a_target_are_seen(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/arch").write_text("amd64\ni386\n")
    assert foreign_architectures(tmp_path, "amd64") == ("i386",)
    lines = [
        'DPkg::Pre-Install-Pkgs:: "/usr/sbin/dpkg-preconfigure --apt || true";',
        'DPkg::Post-Invoke:: "etckeeper";',
    ]
    assert len(foreign_hooks(lines)) == 1
    assert "etckeeper" in foreign_hooks(lines)[0]


@pytest.mark.parametrize(
    ("uri", "suite", "name"),
    [
        ("http://m.example/debian", "trixie", "m.example_debian_dists_trixie_InRelease"),
        ("https://u:p@m.example:8080/a_b/", "x/y", "m.example:8080_a%5fb_dists_x_y_InRelease"),
        ("file:/srv/repo", "./", "_srv_repo_._InRelease"),
        ("file:///srv/repo", "dist/", "_srv_repo_dist_InRelease"),
        ("http://m.example//double", "trixie", "m.example__double_dists_trixie_InRelease"),
        ("http://[::1]:80/v6", "trixie", "::1:80_v6_dists_trixie_InRelease"),
        ("http://user@m.example/de~b+i@n", "t", "m.example_de%7eb+i%40n_dists_t_InRelease"),
        ("http://m.example/flat", "/", "m.example_flat_InRelease"),
    ],
)
def test_lists_are_found_under_apts_own_names(uri: str, suite: str, name: str) -> None:
    assert list_name(uri, suite, "InRelease") == name


FIELD = st.from_regex(r"[A-Z][A-Za-z-]{0,10}", fullmatch=True)
LINE = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\x85"), min_size=1, max_size=20)
VALUE = st.builds(lambda first, more: "\n ".join((first, *more)), LINE, st.lists(LINE, max_size=2))


@given(st.lists(st.dictionaries(FIELD, VALUE, min_size=1, max_size=4), min_size=1, max_size=3))
def test_paragraphs_are_read_as_python_debian_reads_them(fields: list[dict[str, str]]) -> None:
    text = "\n".join("".join(f"{name}: {value}\n" for name, value in one.items()) for one in fields)
    unique = [{name.lower(): value for name, value in one.items()} for one in fields]
    if any(len(one) != len(two) for one, two in zip(unique, fields, strict=True)):
        return  # python-debian takes names without case, dpkg's files have one spelling
    ours = [paragraph.fields for paragraph in paragraphs(text.encode(), "x")]
    assert ours == [dict(paragraph) for paragraph in Deb822.iter_paragraphs(text.encode())]


def test_an_empty_set_has_no_places() -> None:
    assert SourceSet("amd64", ()).places == ()
