"""Scripts outside the target that read the caller's files run again when these change, and only then."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, printed, ran
from tests.people import ordinary_user, ourselves

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.build

READS = "extra-data.d/20-reads"
LISTS = "cleanup.d/30-lists"
WORDS = ("-o", "images/out", "small", "reads")


@pytest.fixture(params=[ourselves, ordinary_user])
def small(request: pytest.FixtureRequest) -> SmallElements:
    person = request.param()
    elements = SmallElements(person, person.directory("callers-files"))
    elements.write("reads/README.rst", "=====\nreads\n=====\nReads files of the caller.\n")
    elements.script(f"reads/{READS}", 'name=settings; cat "conf/$name.txt"')
    elements.script(f"reads/{LISTS}", 'cd "$(dirname "$IMAGE_NAME")"; for f in parts/*; do cat "$f"; done; touch mine')
    for name in ("conf", "images", "images/parts"):
        (elements.place / name).mkdir()
        os.chown(elements.place / name, person.uid, person.gid)
    (elements.place / "conf/settings.txt").write_text("one\n")
    (elements.place / "conf/other.txt").write_text("one\n")
    (elements.place / "images/parts/a").write_text("a\n")
    return elements


def test_a_file_in_the_working_directory_that_a_script_reads_counts(small: SmallElements) -> None:
    assert printed(small.build(*WORDS), READS) == ["one"]
    (small.place / "conf/other.txt").write_text("two\n")
    assert ran(small.build(*WORDS)) == []
    (small.place / "conf/settings.txt").write_text("two\n")
    (step,) = [step for step in small.plan(*WORDS)["steps"] if step["step"] == READS]
    assert "the file in the working directory conf/settings.txt has changed" in str(step)
    events = small.build(*WORDS)
    assert printed(events, READS) == ["two"]
    assert ran(events) == [READS], "nothing else has read it, and the target is the same"
    (small.place / "conf/settings.txt").write_text("one\n")
    assert ran(small.build(*WORDS)) == [], "the layer of the first time serves again"


def test_files_beside_the_image_count_and_so_do_new_ones_in_a_directory_that_is_listed(small: SmallElements) -> None:
    assert printed(small.build(*WORDS), LISTS) == ["a"]
    assert ran(small.build(*WORDS)) == [], "what it left itself does not count"
    (small.place / "images/parts/b").write_text("b\n")
    events = small.build(*WORDS)
    assert (printed(events, LISTS), ran(events)) == (["a", "b"], [LISTS])
    (small.place / "images/parts/a").write_text("new\n")
    events = small.build(*WORDS)
    assert (printed(events, LISTS), ran(events)) == (["new", "b"], [LISTS])
    assert ran(small.build(*WORDS)) == []


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory that is in nobody's home, nor in the working directory; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_a_file_that_a_variable_names_is_seen_wherever_it_lies_and_counts(
    small: SmallElements, elsewhere: Path
) -> None:
    one, two = elsewhere / "one.txt", elsewhere / "two.txt"
    one.write_text("one\n")
    two.write_text("two\n")
    (elsewhere / "other.txt").write_text("other\n")
    named = f"{one} {two}"
    small.script(f"reads/{READS}", f'cat $DIB_NAMED; [ ! -e "{elsewhere}/other.txt" ]; ! echo >> "{one}"')
    assert printed(small.build(*WORDS, DIB_NAMED=named), READS)[:2] == ["one", "two"]
    assert ran(small.build(*WORDS, DIB_NAMED=named)) == []
    two.write_text("new\n")
    events = small.build(*WORDS, DIB_NAMED=named)
    assert printed(events, READS)[:2] == ["one", "new"]
    assert one.read_text() == "one\n"
