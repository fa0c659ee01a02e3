"""What a failed step had written is kept apart from results, one for each key, until the step has run well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dibble.store.collection import collect
from dibble.store.entries import entries_of
from dibble.store.layers import LayerStore, Record, failed_name
from dibble.store.places import Store, open_store
from dibble.store.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

KEY = "k" * 64
STEP = "install.d/50-web"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "cache")


def keep_failed(store: Store, text: str, *, key: str = KEY, tree: str = "tree") -> Record:
    name = failed_name(key)
    record = Record(id=name, key=key, step=STEP, tree=tree, tree_before=tree, stack=(f"{name}/0",))
    with store.session() as session:
        upper = session.path / "upper"
        (upper / "mnt/etc").mkdir(parents=True)
        (upper / "mnt/etc/half").write_text(text)
        LayerStore(store).keep_failed(record, [upper], session.path)
    return record


def half(store: Store, record: Record) -> str:
    return (store.layers / record.stack[0] / "mnt/etc/half").read_text()


def failed(store: Store, *, key: str = KEY, tree: str = "tree") -> Record | None:
    return LayerStore(store).failed(STEP, key, tree)


def test_it_is_found_under_the_key_of_the_step_and_is_no_result(store: Store) -> None:
    keep_failed(store, "one")
    found = failed(store)
    assert found is not None
    assert half(store, found) == "one"
    layers = LayerStore(store)
    assert layers.candidates(KEY) == []
    assert layers.of_step(STEP) == [], "nothing is explained, foreseen or adopted by it"


def test_the_last_failure_takes_the_place_of_the_one_before(store: Store) -> None:
    keep_failed(store, "one")
    keep_failed(store, "two")
    found = failed(store)
    assert found is not None
    assert half(store, found) == "two"
    assert len(list(store.layers.iterdir())) == 1
    store.sweep()
    assert list(store.tmp.iterdir()) == []


def test_an_edited_script_finds_what_the_one_before_left_on_the_same_tree(store: Store) -> None:
    keep_failed(store, "one")
    found = failed(store, key="e" * 64)
    assert found is not None
    assert half(store, found) == "one"
    assert failed(store, key="e" * 64, tree="another tree") is None
    keep_failed(store, "newer", key="n" * 64)
    for key, text in ((KEY, "one"), ("n" * 64, "newer"), ("e" * 64, "newer")):
        found = failed(store, key=key)
        assert found is not None
        assert half(store, found) == text


def test_a_step_that_ran_well_forgets_its_failures_on_that_tree_only(store: Store) -> None:
    keep_failed(store, "one")
    keep_failed(store, "two", key="o" * 64, tree="another tree")
    warnings: list[str] = []
    layers = LayerStore(store, warnings.append)
    layers.forget_failed(STEP, "tree")
    assert layers.failed(STEP, KEY, "tree") is None
    assert layers.failed(STEP, "o" * 64, "another tree") is not None
    assert warnings == [], "it is not damaged, but gone"


def test_it_can_be_verified_and_collected_like_any_layer(store: Store) -> None:
    record = keep_failed(store, "one")
    assert [entry.what for entry in entries_of(store)] == [f"failed {STEP}"]
    assert verify(store).faults == []
    store.uses.release()
    assert collect(store).removed == [], "it is no orphan"
    collect(store, older_than=-1)
    assert failed(store) is None
    assert not (store.layers / record.id).exists()


def test_one_that_lost_its_files_is_not_entered(store: Store) -> None:
    record = keep_failed(store, "one")
    (store.layers / record.stack[0]).rename(store.tmp / "elsewhere")
    assert failed(store) is None


def test_a_remote_cache_never_gets_it(store: Store) -> None:
    class Pushing(LayerStore):
        pushed: list[str] = []  # noqa: RUF012 - one test's

        def keep(self, record: Record, *arguments: object, **more: object) -> None:
            self.pushed.append(record.id)

    layers = Pushing(store)
    record = keep_failed(store, "one")
    with store.session() as session:
        (session.path / "upper").mkdir()
        layers.keep_failed(record, [session.path / "upper"], session.path)
    assert layers.pushed == []
