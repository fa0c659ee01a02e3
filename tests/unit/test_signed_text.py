"""`signed-text` of the element cache-url, with real keys and signatures."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import SYSTEM, HookBuild

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


class Keys:
    """A GnuPG of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def gpg(self, *arguments: str) -> str:
        options = ["--homedir", str(self.home), "--batch", "--yes", "--quiet", "--passphrase", ""]
        return run(["gpg", *options, *arguments], env={"PATH": SYSTEM}).output

    def make(self, name: str) -> str:
        """Makes a key and returns its fingerprint."""
        self.gpg("--quick-generate-key", name, "ed25519", "sign", "never")
        lines = self.gpg("--with-colons", "--list-keys", name).splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    if not shutil.which("gpg") or not shutil.which("gpgv"):
        pytest.skip("gpg is not installed")
    return Keys(tmp_path_factory.mktemp("gnupg") / "home")


@pytest.mark.parametrize("armour", [True, False])
@pytest.mark.parametrize("detached", [True, False])
def test_signed_text_is_printed_when_a_key_of_the_keyring_signed_it(
    build: HookBuild, keys: Keys, armour: bool, detached: bool
) -> None:
    fingerprint = keys.make(f"good-{armour}-{detached}")
    other = keys.make(f"other-{armour}-{detached}")
    keyring, text, signed = build.root / "keys", build.root / "text", build.root / "signed"
    keys.gpg(*(["--armor"] if armour else []), "--output", str(keyring), "--export", fingerprint)
    text.write_text("what is signed\n")
    how = "--detach-sign" if detached else "--clearsign"
    keys.gpg("--local-user", fingerprint, "--output", str(signed), how, str(text))
    words = [str(keyring), str(text), str(signed)] if detached else [str(keyring), str(signed)]
    assert build.run("cache-url/bin/signed-text", *words).output.splitlines()[-1] == "what is signed"
    build.run("cache-url/bin/signed-text", "-f", fingerprint, *words)
    refused = build.run("cache-url/bin/signed-text", "-f", other, *words, status=1)
    assert "another key" in refused.output
    (text if detached else signed).write_text((text if detached else signed).read_text().replace("what", "that"))
    assert "that is signed" not in build.run("cache-url/bin/signed-text", *words, status=1).output.replace(
        "BAD signature", ""
    )


def test_a_signature_by_a_key_that_is_not_in_the_keyring_is_none(build: HookBuild, keys: Keys) -> None:
    one, two = keys.make("one"), keys.make("two")
    keyring, text, signed = build.root / "keys", build.root / "text", build.root / "signed"
    keys.gpg("--output", str(keyring), "--export", one)
    text.write_text("what is signed\n")
    keys.gpg("--local-user", two, "--output", str(signed), "--clearsign", str(text))
    assert "what is signed" not in build.run("cache-url/bin/signed-text", str(keyring), str(signed), status=2).output


def test_an_absent_keyring_is_told(build: HookBuild) -> None:
    assert "does not exist" in build.run("cache-url/bin/signed-text", "/no/keys", "/no/file", status=1).output
