from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.element_trees import make_element

from dibble.elements.readers.block_device import BARE_FILE_SYSTEM, choose_block_device
from dibble.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_without_any_description_there_is_one_bare_file_system(tmp_path: Path) -> None:
    choice = choose_block_device([make_element(tmp_path, "a")], "amd64")
    assert choice.text == BARE_FILE_SYSTEM
    assert not choice.notes


def test_the_text_of_the_variable_goes_before_the_elements(tmp_path: Path) -> None:
    element = make_element(tmp_path, "a", {"block-device-default.yaml": "of a"})
    assert choose_block_device([element], "amd64", "- local_loop: x")[:2] == (
        "- local_loop: x",
        "DIB_BLOCK_DEVICE_CONFIG",
    )
    assert choose_block_device([element], "amd64", "").text == "of a"


def test_the_variable_may_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "my layout.yaml").write_text("- mine\n")
    choice = choose_block_device([], "amd64", f"file://{tmp_path}/my layout.yaml")
    assert choice[:2] == ("- mine\n", f"{tmp_path}/my layout.yaml")


@pytest.mark.parametrize("url", ["file://relative.yaml", "file:///no/such/file.yaml", "file://"])
def test_a_file_that_cannot_be_read_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="DIB_BLOCK_DEVICE_CONFIG"):
        choose_block_device([], "amd64", url)


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        ("amd64", "default"),
        ("arm64", "arm64"),
        ("ppc64el", "ppc64el"),
        ("ppc64le", "ppc64el"),
        ("ppc64", "default"),
    ],
)
def test_the_file_of_the_architecture_goes_before_the_default(tmp_path: Path, arch: str, text: str) -> None:
    files = {f"block-device-{name}.yaml": name for name in ("default", "arm64", "ppc64el")}
    element = make_element(tmp_path, "a", files)
    choice = choose_block_device([element], arch)
    assert choice.text == text
    assert choice.source == str(element.path / f"block-device-{text}.yaml")


def test_of_two_elements_the_later_one_wins_and_the_user_is_told(tmp_path: Path) -> None:
    elements = [make_element(tmp_path, name, {"block-device-default.yaml": name}) for name in ("below", "above")]
    choice = choose_block_device(elements, "amd64")
    assert choice.text == "above"
    assert [note.level for note in choice.notes] == ["warning"]
    assert "above" in choice.notes[0].text
    assert "below" in choice.notes[0].text


def test_a_requested_element_goes_before_one_that_was_added(tmp_path: Path) -> None:
    elements = [make_element(tmp_path, name, {"block-device-default.yaml": name}) for name in ("mine", "added")]
    assert choose_block_device(elements, "amd64", requested=["vm", "mine"]).text == "mine"
