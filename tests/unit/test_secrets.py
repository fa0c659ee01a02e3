"""Secrets of a build: how they are given, and that nothing but their mark is left of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import StoreError, UsageError
from dibble.recipe.kinds import NAMED_FILES
from dibble.recipe.merge import Asked, Host, merge
from dibble.run.secrets import read_secrets
from dibble.store.marks import FILE, mark_of
from dibble.store.places import Store

pytestmark = pytest.mark.unit

HOST = Host("x86_64", Path("/home/me"), Path("/here"), Path("/catalogue"))


def test_the_nearest_source_names_the_file_and_no_hook_hears_of_it() -> None:
    request = merge(
        Asked(("vm",), {"secrets": ("a=line",)}),
        Asked((), {"secrets": ("a=recipe", "b=sub/recipe")}),
        {"DIBBLE_SECRETS": "b=variable,c=/abs=olute"},
        HOST,
    )
    assert request.secrets == {
        "a": Path("/here/line"),
        "b": Path("/here/sub/recipe"),
        "c": Path("/abs=olute"),
    }
    assert "DIBBLE_SECRETS" not in request.environment


@pytest.mark.parametrize("text", ["", "name", "=file", "name=", "a b=file", "a/b=file", "n=a\0b"])
def test_what_names_no_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="takes a name, =, and a file"):
        NAMED_FILES.of_text(text)


def test_a_recipe_gives_a_map() -> None:
    assert NAMED_FILES.of_data({"disk": "a file, with=all"}) == ("disk=a file, with=all",)
    with pytest.raises(ValueError, match="takes a map of names to files, not a list"):
        NAMED_FILES.of_data(["disk=file"])


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_marks_differ_as_contents_do_and_hang_on_the_stores_own_key(
    tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes
) -> None:
    store, elsewhere = (Store(tmp_path_factory.mktemp("store")) for _ in range(2))
    assert mark_of(store, one) == mark_of(store, one)
    assert (mark_of(store, one) == mark_of(store, other)) == (one == other)
    assert mark_of(store, one) != mark_of(elsewhere, one)
    assert [path.name for path in store.root.iterdir()] == [FILE]
    assert (store.root / FILE).stat().st_mode & 0o777 == 0o600


def test_a_store_that_takes_no_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write to the cache"):
        mark_of(Store(tmp_path / "missing"), b"x")


def test_a_secret_is_read_as_it_is_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"moonlight\n")
    (secret,) = read_secrets({"disk": tmp_path / "file"}, Store(tmp_path)).values()
    assert (secret.name, secret.content) == ("disk", b"moonlight\n")
    assert "moonlight" not in repr(secret)
    assert secret.mark in repr(secret)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "is empty"), (b"\n", "is empty"), (bytes((8 << 20) + 1), "is larger than 8 MiB")],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_secrets({"disk": tmp_path / "file"}, Store(tmp_path))
    assert '"disk"' in caught.value.message
    assert caught.value.hint
