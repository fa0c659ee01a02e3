"""The store: layers by key, outputs, sweeping, sparse copies."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import StoreError
from dibble.store.contents import differences
from dibble.store.layers import Input, LayerStore, OutputStore, Record
from dibble.store.places import open_store, remove_tree, write_whole
from dibble.store.sparse import copy_sparse

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def record(name: str = "a" * 40, key: str = "k", stack: tuple[str, ...] = ()) -> Record:
    return Record(id=name, key=key, step="install.d/1-x", tree="t", tree_before="s", stack=stack)


def test_a_kept_layer_is_found_by_its_key_with_all_its_fields(tmp_path: Path) -> None:
    store = open_store(tmp_path / "cache")
    layers = LayerStore(store)
    kept = dataclasses.replace(
        record(stack=(f"{'a' * 40}/0", "@resolv-conf")),
        hooks={"bin/x": "x1", "gone": None},
        inputs=(Input("apt", "http://mirror/debian trixie", "d1"),),
        exports=("vmlinuz",),
        network=("http://mirror/debian trixie",),
        initramfs_pending=True,
    )
    with store.session() as session:
        upper = session.path / "upper"
        upper.mkdir()
        (upper / "file").write_text("x")
        exports = session.path / "exports"
        exports.mkdir()
        (exports / "vmlinuz").write_text("v")
        layers.keep(kept, [upper], exports, session.path)
    assert layers.candidates("k") == [dataclasses.replace(kept, names=("0/file", "exports/vmlinuz"))]
    assert (layers.path(kept.stack[0]) / "file").read_text() == "x"
    assert list(store.tmp.iterdir()) == []


def test_a_record_whose_layer_is_gone_does_not_count(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    layers = LayerStore(store)
    with store.session() as session:
        layers.keep(record(stack=("pkg-0/0",)), [], None, session.path)
    assert layers.candidates("k") == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 99}'])
def test_a_damaged_record_is_no_hit(tmp_path: Path, damage: str) -> None:
    store = open_store(tmp_path)
    layers = LayerStore(store)
    with store.session() as session:
        layers.keep(record(), [], None, session.path)
    (store.layers / ("a" * 40) / "record.json").write_text(damage)
    assert layers.candidates("k") == []


def test_the_newest_layer_of_a_key_comes_first_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    layers = LayerStore(store)
    with store.session() as session:
        for letter in "abcdef":
            layers.keep(record(letter * 40), [], None, session.path)
    assert [found.id[0] for found in layers.candidates("k")] == ["f", "e", "d", "c"]


def test_a_session_of_a_dead_process_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    child = os.fork()
    if child == 0:
        store.session()
        os._exit(0)
    os.waitpid(child, 0)
    with store.session() as living:
        store.sweep()
        assert [path.name for path in store.tmp.iterdir()] == [living.path.name]


def test_a_cache_that_cannot_be_written_names_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the cache") as caught:
        open_store(tmp_path / "file")
    assert "DIB_IMAGE_CACHE" in caught.value.hint


def test_remove_tree_removes_what_may_not_be_entered(tmp_path: Path) -> None:
    (tmp_path / "a/work/work").mkdir(parents=True)
    (tmp_path / "a/work/work").chmod(0)
    (tmp_path / "a/work").chmod(0)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_outputs_are_found_only_when_complete(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    outputs = OutputStore(store)
    (tmp_path / "x.qcow2").write_bytes(b"q" * 10)
    with store.session() as session:
        outputs.keep("key", {"output.qcow2": tmp_path / "x.qcow2"}, session.path)
    found = outputs.find("key")
    assert found is not None
    assert (found / "output.qcow2").read_bytes() == b"q" * 10
    (found / "complete").unlink()
    assert outputs.find("key") is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=6))
def test_a_sparse_copy_has_the_same_bytes_and_no_more_blocks(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[bool, int]]
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    with (folder / "a").open("wb") as file:
        for is_data, count in pieces:
            if is_data:
                file.write(b"d" * (count << 16))
            else:
                file.seek(count << 16, os.SEEK_CUR)
        file.truncate()
    copy_sparse(folder / "a", folder / "b")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    assert (folder / "b").stat().st_blocks <= (folder / "a").stat().st_blocks


def test_write_whole_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"one")
    write_whole(tmp_path / "f", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"two")]


def test_a_kept_output_is_recorded_as_what_it_is(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    files = {"output.raw": tmp_path / "sparse", "output.tar": tmp_path / "plain"}
    with files["output.raw"].open("wb") as file:
        file.seek(8 << 20)
        file.write(b"x" * 70_000)
        file.truncate(32 << 20)
    files["output.tar"].write_bytes(b"plain" * 700_000)
    outputs = OutputStore(store)
    with store.session() as session:
        outputs.keep("k", files, session.path)
    entry = outputs.find("k")
    assert entry is not None
    assert list(differences(entry)) == []
    (entry / "output.tar").write_bytes(b"Plain" + b"plain" * 699_999)
    assert [found.path for found in differences(entry)] == ["output.tar"]
