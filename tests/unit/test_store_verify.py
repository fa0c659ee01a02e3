"""Verification names each damaged entry and file; repair takes it out with what depends on it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.unit.store_entries import keep_blob, keep_layer, keep_output, keep_package, keep_set, layer_id

from dibble.store.entries import entries_of
from dibble.store.layers import LayerStore
from dibble.store.places import Store, open_store
from dibble.store.verify import Fault, repair, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two recipes: a → b → c and a → x, where b stands on a set of packages; an output of each."""
    made = open_store(tmp_path / "cache")
    sha256 = keep_package(made, b"p" * 1000)
    keep_set(made, "s", [sha256])
    keep_layer(made, "a")
    keep_layer(made, "b", after="a", packages="s")
    keep_layer(made, "c", after="b")
    keep_layer(made, "x", after="a")
    keep_output(made, "of-c", b"qqqq", "c")
    keep_output(made, "of-x", b"qqqq", "x")
    return made


def package(store: Store) -> Path:
    return next(store.packages.glob("*/*"))


def spoil(path: Path) -> None:
    """Change one byte and none of the times."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def left(store: Store) -> set[str]:
    """What stands in the store beside downloads and packages."""
    return {
        entry.name.replace(letter * 40, letter)
        for entry in entries_of(store)
        if entry.kind not in ("download", "package")
        for letter in [entry.name[-1]]
    }


ALL = {"layers/a", "layers/b", "layers/c", "layers/x", "layers/pkg-s", "outputs/of-c", "outputs/of-x"}


def test_a_sound_store_has_no_faults(store: Store) -> None:
    told: list[tuple[int, int]] = []
    found = verify(store, lambda done, total: told.append((done, total)))
    assert found.faults == []
    assert found.unrecorded == []
    assert found.checked == {"blobs": 1, "packages": 1, "layers": 5, "outputs": 2, "keys": 8}
    assert told[-1] == (17, 17)
    assert left(store) == ALL


CASES: list[tuple[Callable[[Store], object], str, str, str, set[str]]] = [
    (lambda s: spoil(s.layers / layer_id("c") / "0/mnt/etc/file"),
     f"layers/{layer_id('c')}", "0/mnt/etc/file", "has other content", {"layers/c", "outputs/of-c"}),
    (lambda s: spoil(s.layers / layer_id("a") / "0/mnt/etc/file"),
     f"layers/{layer_id('a')}", "0/mnt/etc/file", "has other content", ALL - {"layers/pkg-s"}),
    (lambda s: (s.layers / layer_id("c") / "record.json").write_text("{"),
     f"layers/{layer_id('c')}", "record.json", "has another time", {"layers/c", "outputs/of-c"}),
    (lambda s: (s.layers / layer_id("x") / "contents").write_text("x"),
     f"layers/{layer_id('x')}", "", "has a damaged record of its contents", {"layers/x", "outputs/of-x"}),
    (lambda s: spoil(s.outputs / "of-c/output.qcow2"), "outputs/of-c", "output.qcow2", "has other content",
     {"outputs/of-c"}),
    (lambda s: spoil(s.layers / "pkg-s/0/mnt/status"), "layers/pkg-s", "0/mnt/status", "has other content",
     {"layers/pkg-s", "layers/b", "layers/c", "outputs/of-c"}),
    (lambda s: (s.keys / "key-a").write_text("["), "keys/key-a", "", "is no list of layers", set()),
    (lambda s: (s.keys / "key-n").write_text('["nothing"]'), "keys/key-n", "",
     "leads to layers that are gone: nothing", set()),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "entry", "file", "what", "lost"), CASES)
def test_damage_is_named_and_repair_takes_out_what_depends_on_it(
    store: Store, damage: Callable[[Store], object], entry: str, file: str, what: str, lost: set[str]
) -> None:
    damage(store)
    found = verify(store)
    assert [(fault.entry, fault.file) for fault in found.faults] == [(entry, file)]
    assert found.faults[0].what.startswith(what)
    assert left(store) == ALL, "only looked"
    repair(store, found)
    assert left(store) == ALL - lost
    assert verify(store).faults == []
    assert list(store.tmp.iterdir()) == []


def test_what_may_have_been_made_on_a_damaged_layer_goes_also_where_a_sound_one_leads_to_the_same_tree(
    store: Store,
) -> None:
    keep_layer(store, "y", after="a", tree="b")
    spoil(store.layers / layer_id("b") / "0/mnt/etc/file")
    repair(store, verify(store))
    assert left(store) == {"layers/a", "layers/x", "layers/y", "layers/pkg-s", "outputs/of-x"}


def test_an_unreadable_record_costs_what_may_stand_on_it(store: Store) -> None:
    """Which tree the layer led to is lost with its record: whatever no whole layer leads to goes as well."""
    (store.layers / layer_id("b") / "record.json").write_text("{")
    found = verify(store)
    repair(store, found)
    assert left(store) == {"layers/a", "layers/x", "layers/pkg-s", "outputs/of-x"}


def test_a_damaged_file_of_a_package_damages_the_sets_that_have_it(store: Store) -> None:
    sha256 = package(store).name
    spoil(package(store) / "root/usr/share" / sha256)
    found = verify(store)
    assert {fault.entry for fault in found.faults} == {f"packages/{sha256[:2]}/{sha256}", "layers/pkg-s"}
    repair(store, found)
    assert left(store) == {"layers/a", "layers/x", "outputs/of-x"}
    assert not package_exists(store)
    assert verify(store).faults == []


def package_exists(store: Store) -> bool:
    return any(store.packages.glob("*/*"))


def test_a_damaged_download_is_named_and_removed(store: Store) -> None:
    sha256 = keep_blob(store, b"download")
    spoil(store.blobs / sha256[:2] / sha256)
    keep_blob(store, b"good")
    found = verify(store)
    assert [str(fault).partition(", of")[0] for fault in found.faults] == [
        f"blobs/{sha256[:2]}/{sha256} holds other content"
    ]
    repair(store, found)
    assert not (store.blobs / sha256[:2] / sha256).exists()
    assert left(store) == ALL


def test_many_damaged_files_of_one_entry_are_counted(store: Store) -> None:
    for number in range(20):
        (store.layers / layer_id("c") / "0/mnt/etc" / f"new{number:02}").touch()
    faults = verify(store).faults
    assert len(faults) == 6
    assert faults[-1] == Fault(f"layers/{layer_id('c')}", "has 16 more damaged files")


def test_entries_of_an_older_dibble_say_nothing_and_are_no_faults(store: Store) -> None:
    (package(store) / "contents").unlink()
    found = verify(store)
    assert found.unrecorded == [str(package(store).relative_to(store.root))]
    assert found.faults == []


def test_what_a_build_uses_is_only_put_aside(store: Store) -> None:
    (store.layers / layer_id("c") / "0/mnt/etc/new").touch()
    child_says, says = os.pipe()
    goes_on, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        with store.session():
            os.write(says, b".")
            os.read(goes_on, 1)
        os._exit(0)
    os.read(child_says, 1)
    repair(store, verify(store))
    assert not (store.layers / layer_id("c")).exists()
    assert any(path.name.startswith("aside-") for path in store.tmp.iterdir())
    os.write(go_on, b".")
    os.waitpid(child, 0)
    store.sweep()
    assert list(store.tmp.iterdir()) == []


# --- what a build meets


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda at: (at / "record.json").write_text("{"), "has a record.json that cannot be read"),
        (lambda at: (at / "record.json").write_text("[]"), "has a record.json without the fields"),
        (lambda at: (at / "record.json").unlink(), "has no record.json"),
        (lambda at: (at / "record.json").write_text(
            (at.parent / layer_id("c") / "record.json").read_text()), "has the record of another layer"),
        (lambda at: (at / "0").rename(at.parent / "moved"), "has lost 0/mnt"),
        (lambda at: (at / "0/mnt").rename(at / "0/mn"), "has lost 0/mnt"),
        (lambda at: at.rename(at.parent / "moved"), "is gone"),
        (lambda at: (at.parent / "pkg-s/0/mnt").rename(at.parent / "moved"), "has lost its set of packages pkg-s/0"),
    ],
)  # fmt: skip
def test_a_damaged_layer_is_told_once_put_aside_and_made_again(
    store: Store, damage: Callable[[Path], object], what: str
) -> None:
    damage(store.layers / layer_id("b"))
    warned: list[str] = []
    layers = LayerStore(store, warned.append)
    assert layers.candidates("key-b") == []
    assert layers.candidates("key-b") == []
    assert len(warned) == 1
    assert f"the layer {layer_id('b')} in the cache {what}" in warned[0]
    assert "run again" in warned[0]
    keep_set(store, "s", [package(store).name])
    made = keep_layer(store, "b", after="a", packages="s")
    assert [record.id for record in layers.candidates("key-b")] == [made.id]
    assert len(warned) == 1


def test_a_damaged_layer_that_stands_in_the_way_is_replaced(store: Store) -> None:
    (store.layers / layer_id("c") / "record.json").write_text("{")
    keep_layer(store, "c", after="b")
    assert verify(store).faults == []


def test_a_damaged_list_of_a_key_is_told_and_written_anew(store: Store) -> None:
    (store.keys / "key-c").write_text("[1")
    warned: list[str] = []
    assert LayerStore(store, warned.append).candidates("key-c") == []
    assert len(warned) == 1
    keep_layer(store, "c", after="b")
    assert len(LayerStore(store, warned.append).candidates("key-c")) == 1
    assert len(warned) == 1


def test_a_layer_of_another_version_is_no_damage_and_gives_way(store: Store) -> None:
    path = store.layers / layer_id("c") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1, "more": 1}))
    warned: list[str] = []
    assert LayerStore(store, warned.append).candidates("key-c") == []
    assert warned == []
    keep_layer(store, "c", after="b")
    assert len(LayerStore(store).candidates("key-c")) == 1


def test_a_damaged_output_is_made_again(store: Store) -> None:
    from dibble.store.layers import OutputStore

    (store.outputs / "of-c/output.qcow2").write_bytes(b"q")
    assert OutputStore(store).find("of-c") is None
    keep_output(store, "of-c", b"qqqq", "c")
    found = OutputStore(store).find("of-c")
    assert found is not None
    assert (found / "output.qcow2").read_bytes() == b"qqqq"
