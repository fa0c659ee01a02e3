"""Another format of an image that was built: no step runs, and the disk comes out of the format that is stored."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements, ran

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build


@pytest.fixture(params=["ourselves", "ordinary_user"])
def elements(request: pytest.FixtureRequest) -> SmallElements:
    person: Person = request.getfixturevalue(request.param)
    made = SmallElements(person, person.directory(f"formats-{request.function.__name__[:20]}"))
    made.script("small/install.d/50-links", "mkdir /srv; echo a > /srv/a; cp -l /srv/a /srv/b; mkdir -p /var/lib/empty")
    return made


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def activities(events: list[dict[str, Any]]) -> set[str]:
    return {event["name"] for event in events if event["event"] == "Activity"}


def format_of(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["format"] for event in events if event["event"] == "ArtifactWritten")


def from_the_tree(elements: SmallElements) -> dict[str, str]:
    """The digests of all formats as they are written from the tree; the steps stay in the cache, the outputs do not."""
    elements.build("-t", "raw,qcow2,tar", "-o", "whole", "small")
    whole = {name: elements.place / f"whole.{name}" for name in ("raw", "qcow2", "tar")}
    for name, path in whole.items():
        (stored,) = [found for found in stored_files(elements, name) if same(found, path)]
        shutil.rmtree(stored.parent)
    return {name: digest(path) for name, path in whole.items()}


def stored_files(elements: SmallElements, name: str) -> list[Path]:
    return list((elements.person.cache / "outputs").glob(f"*/output.{name}"))


def same(one: Path, other: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # of a build beside this test
        return one.stat().st_size == other.stat().st_size and digest(one) == digest(other)
    return False


def test_other_formats_are_converted_to_what_the_tree_would_have_given(elements: SmallElements) -> None:
    whole = from_the_tree(elements)
    for wanted in ("qcow2", "raw", "tar", "raw,qcow2,tar"):
        events = elements.build("-t", wanted, "-o", "img", "small")
        assert ran(events) == []
        assert format_of(events) == sorted(wanted.split(","))
        assert any(name.startswith("file system") for name in activities(events)) == (wanted == "qcow2")
        assert ("disk out of the stored qcow2" in activities(events)) == (wanted == "raw")
    assert {name: digest(elements.place / f"img.{name}") for name in whole} == whole


def test_a_stored_raw_disk_becomes_qcow2_and_stays_as_it_is(elements: SmallElements) -> None:
    whole = from_the_tree(elements)
    elements.build("-t", "raw", "-o", "img", "small")
    events = elements.build("-t", "raw,qcow2", "-o", "other", "small")
    assert ran(events) == []
    assert "disk out of the stored raw" in activities(events)
    assert {name: digest(elements.place / f"other.{name}") for name in ("raw", "qcow2")} == {
        name: whole[name] for name in ("raw", "qcow2")
    }
    elements.build("-t", "raw", "-o", "third", "small")
    assert digest(elements.place / "third.raw") == whole["raw"]


def test_a_stored_disk_that_cannot_be_read_is_told_and_not_used(elements: SmallElements) -> None:
    whole = from_the_tree(elements)
    elements.build("-t", "qcow2", "-o", "img", "small")
    (stored,) = [found for found in stored_files(elements, "qcow2") if same(found, elements.place / "img.qcow2")]
    stored.write_bytes(bytes(stored.stat().st_size))
    events = elements.build("-t", "raw", "-o", "img", "small")
    assert ran(events) == []
    notes = [event["text"] for event in events if event["event"] == "Note" and event["level"] == "warning"]
    assert any("cannot be read" in text and "it is not used" in text for text in notes)
    assert digest(elements.place / "img.raw") == whole["raw"]
