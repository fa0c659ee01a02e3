"""What a root will hold after transactions; the whole way with apt is in tests/build/test_apt_engine.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import PackageError
from dibble.packages.apt_foresee import automatic_after, installed_after, status_text
from dibble.packages.apt_resolve import AptTransaction
from dibble.packages.base import Package

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

_TEXT = st.text(max_size=8)
_PACKAGES = st.lists(st.builds(Package, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, st.integers(0, 1 << 40)), max_size=3).map(
    tuple
)
_WORDS = st.lists(_TEXT, max_size=3).map(tuple)


@given(st.builds(AptTransaction, _PACKAGES, _PACKAGES, _WORDS, _WORDS, st.booleans(), _WORDS, st.booleans()))
def test_a_transaction_survives_json(transaction: AptTransaction) -> None:
    assert AptTransaction.from_json(json.loads(json.dumps(transaction.as_json()))) == transaction


@pytest.mark.parametrize("damaged", [None, [], {}, {"install": [{}]}, {"install": 1}, {"install": [], "upgrade": [3]}])
def test_what_is_no_transaction_is_refused(damaged: object) -> None:
    with pytest.raises(PackageError, match="not a transaction"):
        AptTransaction.from_json(damaged)


def test_installed_packages_follow_the_transactions() -> None:
    first = AptTransaction((Package("a", "1", "all"), Package("b", "1", "amd64"), Package("b", "1", "i386")))
    second = AptTransaction((Package("c", "1", "amd64"),), (Package("a", "2", "amd64"),), ("b:i386",), ("c",))
    assert set(installed_after([first, second])) == {("a", "amd64"), ("b", "amd64"), ("c", "amd64")}
    assert installed_after([first, second])["a", "amd64"].version == "2"
    assert installed_after([first, AptTransaction(remove=("b",))]).keys() == {("a", "all")}


def test_what_comes_along_is_marked_unless_all_counts_as_asked_for() -> None:
    first = AptTransaction((Package("a", "1", "all"),), marks=False)
    second = AptTransaction((Package("b", "1", "all"), Package("c", "1", "amd64")), manual=("c",))
    assert automatic_after([first, second], "amd64") == {("b", "amd64")}


LISTED = """\
Package: a
Version: {version}
Description: short
 and long
Depends: b
Filename: pool/a.deb
SHA256: {sha256}
"""


def test_the_status_file_has_the_listed_version_as_installed(tmp_path: Path) -> None:
    old, new = (LISTED.format(version=version, sha256=version * 64) for version in "12")
    (tmp_path / "one").write_text(old)
    (tmp_path / "two").write_text("Package: b\nVersion: 1\n\n" + new)
    installed = {("a", "all"): Package("a", "2", "all", sha256="2" * 64)}
    expected = b"Package: a\nStatus: install ok installed\nVersion: 2\nDepends: b\n"
    assert status_text(installed, [tmp_path / "one", tmp_path / "two"]) == expected
    with pytest.raises(PackageError, match="do not have a 2"):
        status_text(installed, [tmp_path / "one"])
