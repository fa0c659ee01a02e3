"""Stores that cannot be used as they are: told in one sentence, with what is used instead."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.unit.store_entries import keep_blob, keep_layer, layer_id

from dibble.errors import StoreError
from dibble.sandbox.enter import run_in_namespace
from dibble.store import condition
from dibble.store.condition import SCHEMA, place_instead, problem_of, read_description, settled
from dibble.store.entries import entries_of
from dibble.store.layers import LayerStore
from dibble.store.places import Store, open_store
from dibble.store.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit

as_root = pytest.mark.skipif(os.getuid() != 0, reason="mounts, or changes owners")


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that are used instead lie in the test's own directory; nothing is known of earlier ones."""
    monkeypatch.setenv("TMP_DIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(condition, "_opened", {})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a layer and a download, closed again."""
    store = open_store(tmp_path / "cache")
    keep_layer(store, "a")
    keep_blob(store, b"download")
    store.uses.release()
    condition._opened.clear()
    return store.root


@pytest.fixture
def read_only(root: Path, tmp_path: Path) -> Iterator[Path]:
    """The store, mounted read-only at another place."""
    place = tmp_path / "read-only"
    place.mkdir()
    subprocess.run(["mount", "--bind", root, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_new_store_says_its_version_and_whose_ids_it_holds(root: Path) -> None:
    description = read_description(root)
    assert description is not None
    assert description.schema == SCHEMA
    assert description.uids[0][:2] == (0, os.getuid())
    assert sum(count for _, _, count in description.uids) == 65536
    assert problem_of(root) == ""


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema": "x"}', '{"schema": 1}'])
def test_an_older_store_and_one_with_a_damaged_description_are_described_anew(root: Path, text: str | None) -> None:
    good = (root / "store.json").read_text()
    if text is None:
        (root / "store.json").unlink()
    else:
        (root / "store.json").write_text(text)
    warned: list[str] = []
    store = open_store(root, warned.append)
    assert (store.root, warned) == (root, [])
    assert (root / "store.json").read_text() == good
    assert len(LayerStore(store).candidates("key-a")) == 1


def test_a_store_of_a_newer_dibble_is_refused(root: Path) -> None:
    data = json.loads((root / "store.json").read_text())
    (root / "store.json").write_text(json.dumps(data | {"schema": SCHEMA + 1}))
    with pytest.raises(StoreError, match="newer dibble") as caught:
        open_store(root)
    assert "update dibble" in caught.value.hint
    assert "newer dibble" in problem_of(root)


def test_a_store_with_other_ids_is_left_alone_and_nothing_of_it_is_used(root: Path) -> None:
    data = json.loads((root / "store.json").read_text())
    (root / "store.json").write_text(json.dumps(data | {"uids": [[0, 4711, 1], [1, 500000, 65535]]}))
    before = sorted(str(path) for path in root.rglob("*"))
    warned: list[str] = []
    store = open_store(root, warned.append)
    assert store.root == place_instead(root)
    assert len(warned) == 1
    assert "4711" in warned[0]
    assert "with other user and group ids than ours" in warned[0]
    assert str(store.root) in warned[0]
    assert "nothing of the cache is used" in warned[0]
    assert entries_of(store) == []
    keep_layer(store, "b")
    assert sorted(str(path) for path in root.rglob("*")) == before
    assert open_store(root, warned.append) is store
    assert len(warned) == 1, "said once in a process"
    assert "4711" in problem_of(root)


@as_root
def test_a_store_of_another_user_from_before_descriptions_is_left_alone(root: Path) -> None:
    (root / "store.json").unlink()
    os.chown(root, 65534, 65534)
    warned: list[str] = []
    assert open_store(root, warned.append).root == place_instead(root)
    assert "belongs to nobody" in warned[0]
    assert not (root / "store.json").exists()


@as_root
def test_a_read_only_store_is_read_through_another(read_only: Path, root: Path) -> None:
    warned: list[str] = []
    store = open_store(read_only, warned.append)
    assert len(warned) == 1
    assert f"{read_only} cannot be written (Read-only file system)" in warned[0]
    assert str(place_instead(read_only)) in warned[0]
    layers = LayerStore(store, warned.append)
    [found] = layers.candidates("key-a")
    assert (layers.path(found.stack[0]) / "mnt/etc/file").read_text() == "a"
    [blob] = store.blobs.glob("*/*")
    assert blob.read_bytes() == b"download"
    keep_layer(store, "b", after="a")
    assert len(layers.candidates("key-b")) == 1
    assert {path.name for path in root.glob("layers/*")} == {layer_id("a")}
    assert verify(store).faults == []
    condition._opened.clear()
    keep_layer(Store(root), "c")  # its owner goes on
    again = open_store(read_only, warned.append)
    assert [record.id[0] for key in "abc" for record in LayerStore(again).candidates(f"key-{key}")] == ["a", "b", "c"]


@as_root
def test_what_is_used_of_a_read_only_store_is_not_removed_by_its_owner(read_only: Path, root: Path) -> None:
    store = open_store(read_only)
    LayerStore(store).candidates("key-a")
    with Store(root).uses.alone(f"layers/{layer_id('a')}") as free:
        assert not free
    store.uses_behind.release() if store.uses_behind else None
    with Store(root).uses.alone(f"layers/{layer_id('a')}") as free:
        assert free


@as_root
def test_a_damaged_layer_of_a_read_only_store_is_made_again_beside_it(read_only: Path, root: Path) -> None:
    (root / "layers" / layer_id("a") / "record.json").write_text("{")
    warned: list[str] = []
    store = open_store(read_only)
    layers = LayerStore(store, warned.append)
    assert layers.candidates("key-a") == []
    assert len(warned) == 1
    keep_layer(store, "a")
    assert len(layers.candidates("key-a")) == 1
    store.sweep()
    assert (root / "layers" / layer_id("a") / "record.json").exists(), "only the link went"


def test_an_instead_that_is_not_private_is_refused(root: Path) -> None:
    data = json.loads((root / "store.json").read_text())
    (root / "store.json").write_text(json.dumps(data | {"uids": [[0, 4711, 65536]]}))
    place_instead(root).mkdir(parents=True, mode=0o755)
    with pytest.raises(StoreError, match="not a directory that is private to us") as caught:
        open_store(root)
    assert "DIB_IMAGE_CACHE" in caught.value.hint


@as_root
def test_a_store_that_cannot_hold_layers_is_read_and_another_takes_them(root: Path, tmp_path: Path) -> None:
    """A store on an overlay: the kernel allows no upper directory there."""
    upper, work, place = (tmp_path / name for name in ("upper", "work", "over"))
    for path in (upper, work, place):
        path.mkdir()
    options = f"lowerdir={root},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place], check=True)
    try:
        warned: list[str] = []
        store = open_store(place, warned.append)
        assert (store.root, warned) == (place, [])

        def settle() -> tuple[Path, list[str], int]:
            found = settled(store, warned.append)
            return found.root, warned, len(LayerStore(found).candidates("key-a"))

        assert run_in_namespace(settle)[0] == place_instead(place)
        settled_root, said, layers = run_in_namespace(settle)
        assert layers == 1
        assert len(said) == 1
        assert "cannot hold layers" in said[0]
        condition._opened.clear()
        assert open_store(place, warned.append).root == settled_root, "known from now on without trying"
        assert len(warned) == 1
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_store_without_hard_links_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system here has overlays but no hard links, so the call itself is made to fail."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    warned: list[str] = []
    store = open_store(root)

    def settle() -> tuple[Path, list[str]]:
        monkeypatch.setattr(os, "link", refuse)
        return settled(store, warned.append).root, warned

    found, said = run_in_namespace(settle)
    assert found == root
    assert len(said) == 1
    assert "no hard links (Operation not permitted): packages are copied" in said[0]


def test_a_sound_store_is_used_as_it_is(root: Path) -> None:
    warned: list[str] = []
    store = open_store(root, warned.append)
    assert run_in_namespace(lambda: (settled(store, warned.append).root, warned)) == (root, [])
    assert list(store.tmp.iterdir()) == []


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@as_root
def test_a_full_disk_is_told_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    try:
        store = open_store(place)
        keep_layer(store, "a")
        fill(place / "rubbish")
        with pytest.raises((StoreError, OSError)):
            keep_layer(store, "b", after="a")
        assert list(store.tmp.iterdir()) == []
        assert [path.name[0] for path in store.layers.iterdir()] == ["a"]
        assert verify(store).faults == []
        (place / "rubbish").unlink()
        keep_layer(store, "b", after="a")
        assert verify(store).faults == []
    finally:
        subprocess.run(["umount", "-l", place], check=True)
