"""`dibble cache`: what it prints, its JSON, its exit statuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tests.unit.store_entries import keep_layer, keep_output, keep_package, keep_set, layer_id, used_at

from dibble.cli.cache import cache
from dibble.errors import UsageError
from dibble.store import condition
from dibble.store.places import Store, open_store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(condition, "_opened", {})
    monkeypatch.setenv("DIB_IMAGE_CACHE", str(tmp_path / "cache"))
    made = open_store(tmp_path / "cache")
    sha256 = keep_package(made, b"p" * 100_000)
    keep_set(made, "s", [sha256])
    keep_layer(made, "a", packages="s")
    keep_output(made, "image", b"q" * 1000, "a")
    made.uses.release()
    return made


def run(*words: str, status: int = 0) -> str:
    """What a verb prints; its status is what its function returns, as `cli/main.py` takes it."""
    result = CliRunner().invoke(cache, words, standalone_mode=False, catch_exceptions=False)
    assert (result.return_value or 0) == status, result.output
    return result.output


def test_list_names_every_entry_with_what_it_is(store: Store) -> None:
    used_at(store, "outputs/image", 0)
    lines = run("list").splitlines()
    assert lines[0].split() == ["KIND", "SIZE", "AGE", "USED", "NAME", "WHAT"]
    assert sorted(line.split()[0] for line in lines[1:]) == ["download", "layer", "output", "package", "packages"]
    assert lines[-1].startswith("output")
    assert lines[-1].endswith("qcow2")
    assert any(line.endswith("some 1.0") for line in lines)


def test_list_as_json_says_what_is_in_use(store: Store) -> None:
    store.uses.hold(f"layers/{layer_id('a')}")
    found = json.loads(run("list", "--json"))
    assert found["path"] == str(store.root)
    assert {entry["kind"]: entry["in_use"] for entry in found["entries"]} == {
        "download": False, "package": False, "packages": False, "layer": True, "output": False,
    }  # fmt: skip
    assert all(entry["age"] >= 0 and entry["since_use"] >= 0 for entry in found["entries"])


def test_du_counts_shared_files_once(store: Store) -> None:
    said = run("du")
    assert "shared with those above" in next(line for line in said.splitlines() if line.startswith("  packages "))
    found = json.loads(run("du", "--json"))
    assert found["bytes"] == sum(part["bytes"] for part in found["parts"])
    assert run("show") == said, "its older name"


def test_gc_removes_and_says_what(store: Store) -> None:
    assert "would remove outputs/image (output, qcow2), last used" in run("gc", "--max-size", "0", "--dry-run")
    store.uses.hold("outputs/image")
    said = run("gc", "--max-size", "0")
    assert f"removed layers/{layer_id('a')} (layer, install.d/a)" in said
    assert "1 more are in use" in said
    assert "run it again later" in said
    store.uses.release()
    found = json.loads(run("gc", "--older-than", "0s", "--json"))
    assert [entry["name"] for entry in found["removed"]] == ["outputs/image"]
    assert found["bytes_after"] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--max-size", "lots"), "--max-size takes a number of GiB"), (("--older-than", "soon"), "--older-than takes")],
)
def test_a_wrong_size_or_age_is_told(store: Store, words: tuple[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        run("gc", *words)
    assert "gc --help" in caught.value.hint


def test_verify_has_status_1_for_faults_until_they_are_repaired(store: Store) -> None:
    assert "no faults" in run("verify")
    (store.layers / layer_id("a") / "0/mnt/etc/more").touch()
    said = run("verify", status=1)
    assert f"damaged: layers/{layer_id('a')}, 0/mnt/etc/more was not there" in said
    assert "cache verify --repair" in said
    found = json.loads(run("verify", "--repair", "--json"))
    assert found["removed"] == [f"layers/{layer_id('a')}", "outputs/image"]
    assert {fault["file"] for fault in found["faults"]} >= {"0/mnt/etc/more"}
    assert "no faults" in run("verify")


def test_no_cache_is_no_fault_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIB_IMAGE_CACHE", str(tmp_path / "none"))
    assert "does not exist yet" in run("du")
    for verb in ("list", "gc", "verify", "clear"):
        run(verb)
    assert not (tmp_path / "none").exists()
