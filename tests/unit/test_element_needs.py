"""What elements say that they need is looked at before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dibble.elements.model import Element
from dibble.elements.needs import check_needs
from dibble.errors import ElementError
from dibble.run.prepare import CATALOGUE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

NEEDS = "# which image\nIMAGE | PLACE NAME: name the image, or where it is\n\nMETHOD=none | METHOD KEY: register\n"


@pytest.fixture
def element(tmp_path: Path) -> Element:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/element-needs").write_text(NEEDS)
    return Element("one", tmp_path / "one")


@pytest.mark.parametrize(
    "environment",
    [
        {"IMAGE": "x", "METHOD": "none"},
        {"PLACE": "x", "NAME": "y", "METHOD": "portal", "KEY": "z"},
    ],
)
def test_one_alternative_is_enough(element: Element, environment: dict[str, str]) -> None:
    check_needs([element], environment)


@pytest.mark.parametrize(
    ("environment", "line", "what", "hint"),
    [
        ({}, 2, "the element one needs IMAGE, or PLACE and NAME", "name the image, or where it is"),
        ({"PLACE": "x"}, 2, "the element one needs IMAGE, or PLACE and NAME", "name the image, or where it is"),
        ({"IMAGE": "x", "METHOD": ""}, 4, "the element one needs METHOD=none, or METHOD and KEY", "register"),
        ({"IMAGE": "x", "METHOD": "portal"}, 4, "the element one needs METHOD=none, or METHOD and KEY", "register"),
    ],
)
def test_without_any_the_place_and_the_mend_are_told(
    element: Element, environment: dict[str, str], line: int, what: str, hint: str
) -> None:
    with pytest.raises(ElementError) as caught:
        check_needs([element], environment)
    assert (caught.value.message, caught.value.hint) == (what, hint)
    assert (caught.value.where.line, caught.value.where.element) == (line, "one")


def test_what_another_element_may_set_counts_as_set(element: Element, tmp_path: Path) -> None:
    (tmp_path / "two/environment.d").mkdir(parents=True)
    (tmp_path / "two/environment.d/10-two").write_text('export IMAGE="$HOME/image"\nexport METHOD=${METHOD:-none}\n')
    two = Element("two", tmp_path / "two")
    check_needs([element, two], {})
    with pytest.raises(ElementError):
        check_needs([element, two], {"METHOD": "portal"})  # it is set already, to something else


@pytest.mark.parametrize("text", ["IMAGE\n", "IMAGE |: x\n", "a-b: x\n", ": x\n"])
def test_a_line_of_another_form_is_refused(element: Element, text: str) -> None:
    (element.path / "element-needs").write_text(text)
    with pytest.raises(ElementError, match="is not of the form"):
        check_needs([element], {})


def test_rhel_wants_an_image_and_a_subscription_or_repositories() -> None:
    elements = [Element(name, CATALOGUE / "elements" / name) for name in ("rhel", "rhel-common")]
    with pytest.raises(ElementError, match="needs DIB_LOCAL_IMAGE, or DIB_CLOUD_IMAGES and BASE_IMAGE_FILE"):
        check_needs(elements, {})
    image = {"DIB_LOCAL_IMAGE": "/rhel.qcow2"}
    with pytest.raises(ElementError, match="needs REG_METHOD=disable, or") as caught:
        check_needs(elements, image)
    assert "REG_METHOD=portal" in caught.value.hint
    for more in (
        {"REG_METHOD": "disable"},
        {"REG_METHOD": "portal", "REG_ACTIVATION_KEY": "k", "REG_ORG": "1"},
        {"REG_METHOD": "satellite", "REG_USER": "u", "REG_PASSWORD": "p"},
        {"DIB_YUM_REPO_CONF": "/own.repo"},
    ):
        check_needs(elements, image | more)
