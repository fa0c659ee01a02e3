"""What scripts leave beside the image: later scripts find it, and what is left at the end is put there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, cached, printed, ran
from tests.people import ordinary_user, ourselves

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build

FIRST = """echo {text} > "$IMAGE_NAME.kernel"
echo gone > "$IMAGE_NAME.old"
mkdir -p "$IMAGE_NAME.d"
echo a > "$IMAGE_NAME.d/a\""""
SECOND = """echo "found $(cat "$IMAGE_NAME.kernel") and $(ls "$IMAGE_NAME.d")"
echo b > "$IMAGE_NAME.d/b"
rm "$IMAGE_NAME.old"
mv "$IMAGE_NAME.kernel" "$IMAGE_NAME.vmlinuz"
rm -f host"""
THIRD = """echo "third: $(ls "$IMAGE_NAME."*)"
rm -r "$IMAGE_NAME.d"
mkdir "$IMAGE_NAME.d"
echo c > "$IMAGE_NAME.d/c\""""
STEPS = [f"cleanup.d/{name}" for name in ("98-first", "99-second", "100-third")]


@pytest.fixture(params=[ourselves, ordinary_user])
def small(request: pytest.FixtureRequest) -> SmallElements:
    person = request.param()
    elements = SmallElements(person, person.directory("beside"))
    elements.write("leaves/README.rst", "======\nleaves\n======\nLeaves files beside the image.\n")
    for step, text in zip(STEPS, (FIRST.format(text="one"), SECOND, THIRD), strict=True):
        elements.script(f"leaves/{step}", text)
    return elements


def content(place: Path) -> dict[str, str]:
    """The files that belong to the image `out`, less the image itself, and that of the host."""
    found = [path for path in place.rglob("*") if path.is_file() and path.suffix != ".tar"]
    names = {str(path.relative_to(place)): path for path in found}
    return {name: path.read_text() for name, path in names.items() if name.startswith(("out", "host"))}


def test_a_later_script_uses_and_removes_what_an_earlier_one_left_beside_the_image(small: SmallElements) -> None:
    (small.place / "host").write_text("of the host")
    events = small.build("-o", "out", "small", "leaves")
    assert printed(events, STEPS[1]) == ["found one and a"]
    assert printed(events, STEPS[2]) == ["third: out.vmlinuz", "", "out.d:", "a", "b"]
    assert content(small.place) == {"out.vmlinuz": "one\n", "out.d/c": "c\n", "host": "of the host"}

    (small.place / "out.vmlinuz").unlink()
    assert ran(small.build("-o", "out", "small", "leaves")) == []
    assert content(small.place)["out.vmlinuz"] == "one\n"


def test_what_lies_beside_the_image_belongs_to_the_key_of_the_scripts_that_find_it(small: SmallElements) -> None:
    small.build("-o", "out", "small", "leaves")
    shutil.rmtree(small.place / "out.d")
    small.script(f"leaves/{STEPS[0]}", FIRST.format(text="two"))
    planned = {step["step"]: step for step in small.plan("-o", "out", "small", "leaves")["steps"]}
    assert planned[STEPS[1]]["status"] != "cached"
    events = small.build("-o", "out", "small", "leaves")
    assert printed(events, STEPS[1]) == ["found two and a"]
    assert ran(events) == STEPS
    assert "root.d/10-small" in cached(events)
    assert content(small.place)["out.vmlinuz"] == "two\n"


def test_a_step_is_entered_with_the_files_that_it_would_find(small: SmallElements) -> None:
    words = ("-n", "-t", "tar", "-o", "out", "small", "leaves")
    small.build("-o", "out", "small", "leaves")
    for name in ("out.vmlinuz", "out.d/c"):
        (small.place / name).unlink()
    done = small.run("shell", "--at", STEPS[1], "--command", "cat out.kernel out.d/a", *words)
    assert done.stdout.split() == ["one", "a"]
