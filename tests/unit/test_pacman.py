"""What pacman prints and its files say, as they are read; keyrings, with real keys; and how its elements call it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pysequoia
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pysequoia import SignatureMode, Tsk, sign
from tests.serving import served
from tests.unit import needed
from tests.unit.hook_build import ELEMENTS, HookBuild, after

from dibble.errors import NoSuchPackage, PackageError, SignatureError, UsageError
from dibble.packages import pacman_answers as answers
from dibble.packages import pacman_database as database
from dibble.packages import pacman_keys as keys_of
from dibble.packages.bootstrap_words import bootstrap_request
from dibble.packages.pacman import Pacman
from dibble.packages.pacman_conf import Check, read_configuration, servers_of
from dibble.packages.pacman_signatures import Signatures, Signed, signatures_inside
from dibble.packages.small_files import SmallFiles
from dibble.sandbox.process import run
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

SHA256 = "ab" * 32
ROW = f"core\tbash\t5.3-1\tx86_64\tbash-5.3-1-x86_64.pkg.tar.zst\t1000\t{SHA256}\tNone"
DESC = "%NAME%\nbash\n\n%VERSION%\n5.3-1\n\n%ARCH%\nx86_64\n\n%DEPENDS%\nglibc\nreadline>=8\n\n%CSIZE%\n1\n\n"
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)


# --- what it prints


def test_the_packages_of_a_transaction_are_read_and_other_lines_are_not() -> None:
    printed = f":: There are 2 providers available for initramfs:\n   1) mkinitcpio  2) dracut\n\n{ROW}\n"
    (row,) = answers.rows_of(printed)
    assert (row.repository, row.name, row.version, row.arch) == ("core", "bash", "5.3-1", "x86_64")
    assert (row.file, row.size, row.sha256) == ("bash-5.3-1-x86_64.pkg.tar.zst", 1000, SHA256)
    assert row.replaces == ()
    (row,) = answers.rows_of(ROW.replace("None", "sh<5  ash"))
    assert row.replaces == ("sh", "ash")


@pytest.mark.parametrize(("old", "new"), [(SHA256, "None"), ("bash-5.3-1-x", "../bash-5.3-1-x")])
def test_a_package_without_a_digest_or_with_a_path_is_refused(old: str, new: str) -> None:
    with pytest.raises(PackageError, match="no sha256 of bash"):
        answers.rows_of(ROW.replace(old, new))


def test_refusals_name_what_is_missing_or_in_the_way() -> None:
    error = answers.refusal("error: target not found: foo\nerror: target not found: bar\n", 1)
    assert isinstance(error, NoSuchPackage)
    assert "foo, bar" in str(error)
    assert "pkg-map" in str(error.hint)
    said = "resolving...\nerror: failed to commit transaction (conflicting files)\na: /b exists in filesystem\n"
    assert str(answers.refusal(said, 1)).endswith("(conflicting files); a: /b exists in filesystem")
    assert "status 139" in str(answers.refusal("", 139))


def test_steps_and_failed_scripts_are_seen() -> None:
    assert [answers.is_step(line) for line in ("installing bash...", "(1/2) removing a...", "checking keyring...")] == [
        True,
        True,
        False,
    ]
    assert answers.warnings_in("installing a...\nerror: command failed to execute correctly\n") == [
        "command failed to execute correctly"
    ]


def test_its_log_has_one_time_and_no_call() -> None:
    text = (
        "[2026-11-29T01:02:03+0100] [PACMAN] Running 'pacman -S --root /tmp/x'\n"
        "[2026-11-29T01:02:04+0100] [ALPM] installed bash (5.3-1)\n"
        "[2026-11-29T01:02:05+0100] [ALPM-SCRIPTLET] hello\n"
    )
    assert answers.log_lines(text, "T") == ["[T] [ALPM] installed bash (5.3-1)", "[T] [ALPM-SCRIPTLET] hello"]


# --- databases


@given(st.dictionaries(st.from_regex(r"[A-Z0-9]+", fullmatch=True), st.lists(TEXT, max_size=4)))
def test_sections_are_read_as_they_were_written(wanted: dict[str, list[str]]) -> None:
    text = "".join(f"%{name}%\n" + "".join(f"{line}\n" for line in lines) + "\n" for name, lines in wanted.items())
    assert database.sections(text) == wanted


@given(st.text())
def test_whatever_a_description_holds_reading_it_ends(text: str) -> None:
    assert all("\n" not in line for lines in database.sections(text).values() for line in lines)


def packed(entries: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for place, text in entries.items():
            info = tarfile.TarInfo(f"{place}/desc")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bytes])
def test_databases_are_read_however_they_are_compressed(tmp_path: Path, compress: type[bytes]) -> None:
    file = tmp_path / "core.db"
    file.write_bytes(compress(packed({"bash-5.3-1": DESC, "sed-4-1": "%NAME%\nsed\n"})))
    assert database.descriptions(file, {"bash-5.3-1", "gone-1-1"}) == {"bash-5.3-1": DESC}


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x28\xb5\x2f\xfd\0\0", gzip.compress(b"x" * 999, mtime=0)[:20]])
def test_a_damaged_database_is_an_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "core.db"
    file.write_bytes(data)
    with pytest.raises(PackageError, match="the database of a repository is damaged"):
        database.descriptions(file, {"bash-5.3-1"})


def test_a_system_that_is_not_there_yet_has_a_database_of_what_repositories_say(tmp_path: Path) -> None:
    file = tmp_path / "core.db"
    file.write_bytes(packed({"bash-5.3-1": DESC}))
    root = tmp_path / "root"
    database.write_local(root / database.LOCAL, {"bash": "5.3-1", "old": "1-1"}, [file], {"old"})
    assert [(one.name, one.version, one.arch) for one in database.installed(root)] == [
        ("bash", "5.3-1", "x86_64"),
        ("old", "1-1", ""),
    ]
    assert database.automatic(root) == {"bash"}
    text = (root / database.LOCAL / "bash-5.3-1/desc").read_text()
    assert "%DEPENDS%\nglibc\nreadline>=8\n" in text
    assert "CSIZE" not in text

    (root / database.LOCAL / "bash-5.3-1/desc").write_text(f"{DESC}%INSTALLDATE%\n1795965106\n\n")
    database.set_times(root, 7, {("bash", "5.3-1"), ("old", "1-1")})
    assert (root / database.LOCAL / "bash-5.3-1/desc").read_text() == f"{DESC}%INSTALLDATE%\n7\n\n"


# --- settings


CONF = """
[options]
Architecture = auto
SigLevel = Required DatabaseOptional
IgnorePkg = linux  # no comment: pacman knows none behind a value
NoExtract = usr/share/doc/*
[core]
Include = /etc/pacman.d/mirror*
[own]
SigLevel = PackageOptional TrustAll
Server = http://own/$repo/$arch
[wild]
SigLevel = Never
Server = file:///x
[none]
"""


def test_the_targets_settings_tell_repositories_servers_and_what_is_checked(tmp_path: Path) -> None:
    (tmp_path / "etc/pacman.d").mkdir(parents=True)
    (tmp_path / "etc/pacman.conf").write_text(CONF)
    (tmp_path / "etc/pacman.d/mirrorlist").write_text("#Server = http://no\nServer = http://m/$repo/os/$arch/\n")
    (tmp_path / "etc/pacman.d/mirrors-more").write_text("Include = /etc/pacman.d/mirrors-more\n")
    (tmp_path / "etc/pacman.d/mirrors-out").symlink_to("/etc/hostname")
    found = read_configuration(tmp_path, "x86_64")
    assert [(one.name, one.servers, one.check) for one in found.repositories] == [
        ("core", ("http://m/core/os/x86_64",), Check.REQUIRED),
        ("own", ("http://own/own/x86_64",), Check.OPTIONAL),
        ("wild", ("file:///x",), Check.NEVER),
        ("none", (), Check.REQUIRED),
    ]
    text = found.text("x86_64", "/t/hooks")
    assert "NoExtract = usr/share/doc/*\n" in text
    assert "HookDir = /t/hooks\n" in text
    assert "http://" not in text, "pacman itself is told of no server"
    assert read_configuration(tmp_path / "empty", "x86_64").repositories == ()


def test_a_server_stands_for_many() -> None:
    assert servers_of(["https://m/$repo/os/$arch", "http://n/$arch/$repo/"], "extra", "aarch64") == (
        "https://m/extra/os/aarch64",
        "http://n/aarch64/extra",
    )


# --- keys and signatures


@needed.programs("gpg", "gpgv")
def test_of_a_keyring_those_count_that_enough_trusted_ones_have_signed(tmp_path: Path) -> None:
    """Three masters, of whom two are trusted only marginally: as Arch has it, one signature is too few."""
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    gpg = [
        "gpg",
        "--homedir",
        str(home),
        "--batch",
        "--yes",
        "--quiet",
        "--passphrase",
        "",
        "--pinentry-mode",
        "loopback",
    ]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}

    def key(owner: str) -> str:
        run([*gpg, "--quick-generate-key", owner, "ed25519", "cert,sign", "never"], env=env)
        listed = run([*gpg, "--with-colons", "--list-keys", owner], env=env).output
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    masters = [key(f"master-{number}") for number in range(3)]
    packager, lonely, gone = key("packager"), key("lonely"), key("gone")
    for who, signers in ((packager, masters), (gone, masters), (lonely, masters[:1])):
        for signer in signers:
            run([*gpg, "--local-user", signer, "--quick-sign-key", who], env=env)
    place = tmp_path / "root" / keys_of.OF_TARGET
    place.mkdir(parents=True)
    run([*gpg, "--export", "--output", str(place / "own.gpg")], env=env)
    run(["gpgconf", "--homedir", str(home), "--kill", "all"], env=env)
    (place / "own-trusted").write_text("# masters\n" + "".join(f"{one}:4:\n" for one in masters))
    (place / "own-revoked").write_text(f"{gone}\n")
    keyrings = keys_of.Keyrings(tmp_path / "state", tmp_path / "scratch", HostToolbox())
    found = keyrings.of_target(tmp_path / "root")
    assert set(found.fingerprints) == {*masters, packager}
    (kept,) = (tmp_path / "state").iterdir()
    kept.write_text(f'["{lonely}"]')
    assert keyrings.of_target(tmp_path / "root").fingerprints == (lonely,), "it is worked out once"
    with pytest.raises(SignatureError, match="no keys"):
        keyrings.of_target(tmp_path)


def test_keys_that_are_given_count_and_an_image_is_told_of_them(tmp_path: Path) -> None:
    key = Tsk.generate(user_id="Somebody <a@b>").extract_certificate()
    small = SmallFiles(tmp_path / "small", offline=True, max_age_s=0)
    (tmp_path / "key.gpg").write_bytes(bytes(key))
    found = keys_of.given_keys([str(key), "/key.gpg"], small, tmp_path)
    assert set(found.fingerprints) == {key.fingerprint.upper()}
    keys_of.put_into_image(found, tmp_path / "root")
    place = tmp_path / "root" / keys_of.OF_TARGET
    assert f"{key.fingerprint.upper()}:4:\n" in (place / "image-trusted").read_text()
    assert pysequoia.Cert.split_bytes((place / "image.gpg").read_bytes())[0].fingerprint == key.fingerprint


@needed.programs("gpgv")
def test_each_package_is_held_against_its_signature_wherever_that_is(tmp_path: Path) -> None:
    secret, stranger = Tsk.generate(user_id="Packager <a@b>"), Tsk.generate(user_id="Stranger <c@d>")
    file = tmp_path / "served/a.pkg"
    file.parent.mkdir()
    file.write_bytes(b"a package")
    digest = hashlib.sha256(b"a package").hexdigest()
    good = sign(secret.signer(), b"a package", mode=SignatureMode.DETACHED)
    keys, others = (
        keys_of.Keys((str(one).encode(),), (one.fingerprint.upper(),))
        for one in (secret.extract_certificate(), stranger.extract_certificate())
    )
    checker = Signatures(tmp_path / "state", tmp_path / "scratch", HostToolbox(), offline=False)
    with served(file.parent) as url:
        beside = Signed(file, "a.pkg", digest, (f"{url}/a.pkg",), Check.REQUIRED)
        with pytest.raises(SignatureError, match=r"a\.pkg is not signed: there is no"):
            checker.check([beside], keys)
        checker.check([Signed(file, "a.pkg", digest, (f"{url}/a.pkg",), Check.OPTIONAL)], keys)
        checker.check([Signed(file, "a.pkg", digest, (f"{url}/a.pkg",), Check.NEVER)], keys)
        checker.check([Signed(file, "a.pkg", digest, (), Check.REQUIRED, good)], keys)
        (file.parent / "a.pkg.sig").write_bytes(good)
        checker.check([beside], keys)
        assert (tmp_path / "state" / digest).read_bytes() == good
    of_other = sign(secret.signer(), b"another package", mode=SignatureMode.DETACHED)
    other = Signed(file, "a.pkg", digest, (), Check.OPTIONAL, of_other)
    with pytest.raises(SignatureError, match=r"a\.pkg: its signature, by .* does not fit"):
        checker.check([other], keys)
    with pytest.raises(SignatureError, match=r"which is not trusted; the keys that count are: .*Stranger"):
        checker.check([beside], others)
    with pytest.raises(SignatureError, match="no key counts"):
        checker.check([beside], keys_of.Keys((), ()))


def test_signatures_that_a_database_holds_are_found(tmp_path: Path) -> None:
    file = tmp_path / "extra.db"
    file.write_bytes(packed({"a-1-1": f"%PGPSIG%\n{base64.b64encode(b'signature').decode()}\n\n", "b-1-1": DESC}))
    assert signatures_inside(file, ["a-1-1"]) == {"a-1-1": b"signature"}
    assert signatures_inside(file, ["b-1-1"]) == {"b-1-1": b""}
    file.write_bytes(packed({"a-1-1": "%PGPSIG%\nno base64!\n"}))
    with pytest.raises(SignatureError, match="a-1-1 cannot be read"):
        signatures_inside(file, ["a-1-1"])


# --- its words, and its elements


def test_the_words_of_a_bootstrap_are_read() -> None:
    words = "pacman --arch x86_64 --server http://m/$repo --repository core --repository extra --include base --key K"
    request = bootstrap_request(words.split())
    assert (request.suite, request.arch, request.mirrors) == ("rolling", "x86_64", ("http://m/$repo",))
    assert (request.components, request.include, request.keys) == (("core", "extra"), ("base",), ("K",))
    with pytest.raises(UsageError, match="--include"):
        bootstrap_request(words.replace("--include base", "").split())


def test_roots_of_pacman_are_its_own(tmp_path: Path) -> None:
    assert not Pacman.owns(tmp_path)
    (tmp_path / database.LOCAL).mkdir(parents=True)
    assert Pacman.owns(tmp_path)


ARCH = {"ARCH": "amd64", "DIB_RELEASE": "rolling", "DIB_DISTRIBUTION_MIRROR": "http://m/", "DIB_ARCH_SNAPSHOT": ""}
SCRIPT = "arch-minimal/root.d/08-arch-minimal"


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    made = HookBuild(tmp_path)
    (made.target / "etc/pacman.d").mkdir()
    (made.target / "etc/pacman.conf").write_text("[core]\n")
    return made


@pytest.mark.parametrize(
    ("more", "server", "arch"),
    [
        ({}, "http://m/$repo/os/$arch", "x86_64"),
        ({"DIB_ARCH_SNAPSHOT": "2026-11-01"}, "http://m/repos/2026/11/01/$repo/os/$arch", "x86_64"),
        ({"ARCH": "arm64", "DIB_PACMAN_KEYS": "https://k/key"}, "http://m/$arch/$repo", "aarch64"),
    ],
)
def test_an_arch_is_begun_from_its_mirror_which_the_image_keeps(
    build: HookBuild, more: dict[str, str], server: str, arch: str
) -> None:
    build.fake("dib-engine")
    build.run(SCRIPT, env=ARCH | {"DIB_ARCH_REPOSITORIES": "core extra"} | more)
    words = build.calls
    assert words[:3] == ["dib-engine", "bootstrap", "pacman"]
    assert (after(words, "--server"), after(words, "--arch")) == ([server], [arch])
    assert (after(words, "--repository"), after(words, "--include")) == (["core", "extra"], ["base"])
    assert f"Server = {server}\n" in (build.target / "etc/pacman.d/mirrorlist").read_text()
    assert (build.target / "etc/pacman.conf").read_text() == "[core]\n\n[extra]\nInclude = /etc/pacman.d/mirrorlist\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"DIB_RELEASE": "2026"}, "Arch Linux has no release 2026"),
        ({"DIB_ARCH_SNAPSHOT": "yesterday"}, "yesterday is no day"),
        ({"ARCH": "arm64"}, "DIB_PACMAN_KEYS"),
        ({"ARCH": "arm64", "DIB_PACMAN_KEYS": "https://k", "DIB_ARCH_SNAPSHOT": "2026/11/01"}, "no snapshots"),
        ({"ARCH": "s390x"}, "there is no Arch Linux for s390x"),
        ({"DIB_PACMAN_KEYS": "/none.asc"}, "DIB_PACMAN_KEYS: /none.asc is not a file"),
    ],
)
def test_what_arch_has_not_is_told_before_anything_is_fetched(
    build: HookBuild, more: dict[str, str], said: str
) -> None:
    build.fake("dib-engine")
    done = build.run(SCRIPT, status=1, env=ARCH | {"DIB_ARCH_REPOSITORIES": "core extra"} | more)
    assert said in done.output
    assert build.calls == []


@pytest.mark.parametrize(
    ("variables", "mirror"),
    [
        ("ARCH=amd64", "https://geo.mirror.pkgbuild.com"),
        ("ARCH=amd64 DIB_ARCH_SNAPSHOT=2026/11/01", "https://archive.archlinux.org"),
        ("ARCH=arm64", "http://mirror.archlinuxarm.org"),
        ("ARCH=amd64 DIB_DISTRIBUTION_MIRROR=http://own", "http://own"),
    ],
)
def test_mirrors_are_those_of_the_projects(variables: str, mirror: str) -> None:
    file = ELEMENTS / "arch-minimal/environment.d/10-arch-minimal.bash"
    done = run(
        ["bash", "-euc", f"export {variables}; . {file}; echo $DIB_DISTRIBUTION_MIRROR"], env={"PATH": os.defpath}
    )
    assert done.output.strip() == mirror


def test_packages_go_to_the_engine_and_files_to_pacman(build: HookBuild) -> None:
    for name in ("dib-engine", "pacman", "pkg-map"):
        build.fake(name, "echo mapped")
    script = "pacman/bin/install-packages"
    build.run(script, "a", "./b.pkg.tar.zst", "extra/c")
    build.run(script, "-e", "a")
    build.run(script, "-u")
    build.run(script, "-d", "a")
    build.run(script, "-m", "element", "a")
    assert " ".join(build.calls) == (
        "dib-engine install a extra/c pacman --noconfirm --noprogressbar --upgrade ./b.pkg.tar.zst"
        " dib-engine remove a dib-engine upgrade pacman --noconfirm --noprogressbar --sync --refresh --downloadonly a"
        " pkg-map --element element a dib-engine install mapped"
    )
    assert "No packages to install" in build.run(script).output
