"""What dnf's worker refuses in our words, and where a root keeps its packages."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from dibble.errors import FetchError, PackageError, UsageError
from dibble.packages.bootstrap_words import bootstrap_request
from dibble.packages.dnf import _refusal
from dibble.packages.origin import token_of_rpm_repository
from dibble.packages.rpm_database import database_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_a_root_with_debs_has_no_database_of_rpm(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    assert database_of(tmp_path) is None


@pytest.mark.parametrize("place", ["usr/lib/sysimage/rpm", "var/lib/rpm"])
def test_the_database_is_found_where_the_distribution_has_it(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert database_of(tmp_path) is None
    (tmp_path / place / "rpmdb.sqlite").touch()
    assert database_of(tmp_path) == f"/{place}"


def test_a_refusal_names_what_it_is_about_and_what_to_do() -> None:
    missing = _refusal({"refused": "missing", "text": "", "names": ["vim", "emacs"]})
    assert isinstance(missing, PackageError)
    assert str(missing).startswith("no repository has a package vim, emacs")
    assert missing.hint
    assert isinstance(_refusal({"refused": "repository", "text": "404", "names": ["x: http://m"]}), FetchError)
    assert "disk full" in str(_refusal({"refused": "transaction", "text": "disk full", "names": []}))


def test_the_words_of_a_bootstrap_become_a_request() -> None:
    words = ["--releasever", "44", "--arch", "x86_64", "--variable", "mirror=http://m/a=b", "--include", "bash"]
    request = bootstrap_request(["dnf", *words, "--repositories", "[a]\nname=a\n", "--key", "http://m/key"])
    assert (request.suite, request.include, request.sources) == ("44", ("bash",), ("[a]\nname=a\n",))
    assert request.variables == (("mirror", "http://m/a=b"),)
    assert request.keys == ("http://m/key",)
    with pytest.raises(UsageError, match="--repositories"):
        bootstrap_request(["dnf", *words])


def test_the_state_of_a_repository_is_the_digest_that_its_metalink_gives_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"new").hexdigest()
    bodies = {
        "http://m/repodata/repomd.xml": b"new",
        "http://list?repo=a": (
            f'<file name="repomd.xml"><verification><hash type="md5">00</hash><hash type="sha256">{digest}</hash>'
            f'</verification><alternates><hash type="sha256">{"0" * 64}</hash></alternates></file>'
        ).encode(),
    }
    monkeypatch.setattr("dibble.packages.fetch.get_small", lambda url, limit: bodies[url])
    assert {token_of_rpm_repository(url) for url in bodies} == {digest}
