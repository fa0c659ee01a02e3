"""Garbage collection: least recently used first, never what is in use, and nothing half."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.store_entries import (
    keep_blob,
    keep_layer,
    keep_output,
    keep_package,
    keep_set,
    layer_id,
    used_at,
)

from dibble.store.collection import PARTIAL_S, collect
from dibble.store.entries import entries_of, usage_of
from dibble.store.layers import LayerStore
from dibble.store.places import Store, open_store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "cache")


def names(store: Store) -> set[str]:
    return {entry.name for entry in entries_of(store)}


def three_layers(store: Store) -> float:
    """Layers a, b, c of 1 MB each, last used 3, 2 and 1 days ago; returns now."""
    now = time.time()
    for letter, days in (("a", 3), ("b", 2), ("c", 1)):
        keep_layer(store, letter, content=letter * (1 << 20))
        used_at(store, f"layers/{layer_id(letter)}", now - days * DAY)
    store.uses.release()
    return now


def test_without_limits_no_entry_is_removed(store: Store) -> None:
    three_layers(store)
    before = names(store)
    assert collect(store).removed == []
    assert names(store) == before


def test_what_was_not_used_for_long_is_removed_and_its_key_forgets_it(store: Store) -> None:
    now = three_layers(store)
    done = collect(store, older_than=1.5 * DAY, now=now)
    assert [entry.what for entry in done.removed] == ["install.d/a", "install.d/b"]
    assert names(store) == {f"layers/{layer_id('c')}"}
    assert [path.name for path in store.keys.glob("key-*")] == ["key-c"]
    assert len(list(store.keys.iterdir())) == 2, "and the list of the step"
    assert list(store.tmp.iterdir()) == []
    warned: list[str] = []
    assert LayerStore(store, warned.append).candidates("key-a") == []
    assert warned == [], "what was collected is not damaged"


def test_the_least_recently_used_go_first_until_the_size_is_reached(store: Store) -> None:
    three_layers(store)
    LayerStore(store).candidates("key-a")  # uses it
    store.uses.release()
    done = collect(store, max_size=5 << 19)
    assert [entry.what for entry in done.removed] == ["install.d/b"]
    assert done.before > 5 << 19 >= done.after
    assert done.after == sum(usage.bytes for usage in usage_of(entries_of(store)))


def test_what_is_in_use_stays(store: Store) -> None:
    three_layers(store)
    keep_output(store, "image", b"q" * 100, "c")
    sha256 = keep_package(store, b"p" * 100)
    store.uses.release()
    user = Store(store.root)
    LayerStore(user).candidates("key-b")
    user.use_packages([sha256])
    user.use("outputs/image")
    done = collect(store, max_size=0)
    assert names(store) == {
        f"layers/{layer_id('b')}", "outputs/image", f"blobs/{sha256[:2]}/{sha256}", f"packages/{sha256[:2]}/{sha256}",
    }  # fmt: skip
    assert {entry.name for entry in done.in_use} == names(store)
    user.uses.release()
    collect(store, max_size=0)
    assert names(store) == set()


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store) -> None:
    now = three_layers(store)
    before = names(store)
    would = collect(store, older_than=1.5 * DAY, dry_run=True, now=now)
    assert names(store) == before
    done = collect(store, older_than=1.5 * DAY, now=now)
    assert [entry.name for entry in would.removed] == [entry.name for entry in done.removed]
    assert would.after == done.after


def test_packages_stay_as_long_as_a_set_has_links_to_their_files_and_sets_as_long_as_layers(store: Store) -> None:
    now = time.time()
    sha256 = keep_package(store, b"p" * (1 << 20))
    other = keep_package(store, b"o" * (1 << 20))
    keep_set(store, "s", [sha256])
    keep_layer(store, "a", packages="s")
    store.uses.release()
    for name in names(store):
        used_at(store, name, now - 9 * DAY)
    used_at(store, f"layers/{layer_id('a')}", now)
    done = collect(store, older_than=DAY, now=now)
    assert names(store) == {f"layers/{layer_id('a')}", "layers/pkg-s", f"packages/{sha256[:2]}/{sha256}"}
    assert f"packages/{other[:2]}/{other}" in {entry.name for entry in done.removed}
    done = collect(store, max_size=0, now=now)
    assert names(store) == set()
    assert [entry.kind for entry in done.removed] == ["layer", "packages", "package"]


def test_the_first_layers_of_a_long_build_outlive_its_last_ones(store: Store) -> None:
    now = time.time()
    for number, (letter, after) in enumerate((("a", ""), ("b", "a"), ("c", "b"))):
        keep_layer(store, letter, after=after, content=letter * (1 << 20))
        record = store.layers / layer_id(letter) / "record.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"made": now - 9000 + number * 3000}))
        used_at(store, f"layers/{layer_id(letter)}", now - 9000 + number * 3000)
    store.uses.release()
    assert collect(store, older_than=5000, now=now).removed == []
    assert [entry.what for entry in collect(store, max_size=5 << 19, now=now).removed] == ["install.d/c"]


def test_files_with_several_names_count_once_and_are_free_with_the_last(store: Store) -> None:
    sha256 = keep_package(store, b"p" * (1 << 20))
    keep_set(store, "s", [sha256])
    usages = {usage.kind: usage for usage in usage_of(entries_of(store))}
    assert usages["package"].bytes > 1 << 20 > usages["packages"].bytes
    assert usages["packages"].shared == 1 << 20
    store.uses.release()
    used_at(store, "layers/pkg-s", 5)
    used_at(store, f"packages/{sha256[:2]}/{sha256}", 9 * DAY)
    total = sum(usage.bytes for usage in usages.values())
    done = collect(store, max_size=total - (1 << 19))
    assert {entry.kind for entry in done.removed} >= {"packages", "package"}, "the set alone frees too little"


def test_a_clock_that_was_set_back_keeps_nothing_for_ever_and_loses_nothing(store: Store) -> None:
    three_layers(store)
    now = time.time()
    for letter in "abc":
        used_at(store, f"layers/{layer_id(letter)}", now + 900 * DAY)
    assert all(entry.used <= now and entry.made <= now for entry in entries_of(store, now=now))
    assert collect(store, older_than=DAY, now=now).removed == []
    used_at(store, f"layers/{layer_id('b')}", now - 60 * DAY)
    assert [entry.what for entry in collect(store, older_than=DAY, now=now).removed] == ["install.d/b"]
    collect(store, max_size=0, now=now)
    assert names(store) == set()


def test_what_the_dead_left_is_removed(store: Store) -> None:
    three_layers(store)
    child = os.fork()
    if child == 0:
        store.session()
        os._exit(0)
    os.waitpid(child, 0)
    (store.locks / "step-old.lock").write_text(json.dumps({"pid": child, "command": "dibble", "since": 0}))
    old, fresh, future = (store.blobs / "aa" / f".{letter * 64}.part" for letter in "abc")
    old.parent.mkdir()
    for path, age in ((old, 2 * PARTIAL_S), (fresh, 1), (future, -2 * PARTIAL_S)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    (store.keys / "gone").write_text('["' + "f" * 40 + '"]')
    (store.keys / "damaged").write_text("[")
    before = names(store)
    with store.locked("step-held"):
        done = collect(store)
    assert names(store) == before
    assert list(store.tmp.iterdir()) == []
    assert sorted(path.name for path in old.parent.iterdir()) == [fresh.name, future.name]
    assert {"keys/gone", "keys/damaged", "locks/step-old.lock", f"blobs/aa/{old.name}"} <= set(done.rubbish)
    assert "locks/step-held.lock" not in done.rubbish


def test_a_layer_that_no_key_leads_to_goes_after_an_hour(store: Store) -> None:
    now = three_layers(store)
    for letter in "ab":
        (store.keys / f"key-{letter}").unlink()
    record = store.layers / layer_id("a") / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"made": now - 2 * 3600}))
    record = store.layers / layer_id("b") / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"made": now}))
    assert [entry.what for entry in collect(store, now=now).removed] == ["install.d/a"]


def test_entries_say_what_they_are(store: Store) -> None:
    keep_layer(store, "a")
    sha256 = keep_package(store, b"p")
    keep_blob(store, b"not unpacked")
    keep_set(store, "s", [sha256])
    keep_output(store, "image", b"q", "a")
    (store.tools / "t/fs").mkdir(parents=True)
    (store.repositories / "r").mkdir()
    (store.repositories / "r.lock").touch()
    whats = sorted((entry.kind, entry.what) for entry in entries_of(store))
    assert whats == [
        ("download", ""), ("download", "some 1.0"), ("layer", "install.d/a"), ("lists", ""), ("output", "qcow2"),
        ("package", "some 1.0"), ("packages", "1 packages"), ("tools", ""),
    ]  # fmt: skip
