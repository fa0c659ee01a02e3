from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.unit.element_trees import make_element, make_system

from dibble.cli import element_info
from dibble.elements import find
from dibble.elements.model import Element
from dibble.elements.readers.documents import Table, read_document
from dibble.elements.variables import element_variables, image_element_yaml, shell_definitions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path of its own, with nothing behind it."""
    root = tmp_path / "the elements"
    make_system(root, deps=["b", "a"])
    make_element(root, "a")
    make_element(root, "b")
    make_element(root, "vm", deps=["block-device"])
    make_element(root, "block-device-efi", provides=["block-device"])
    make_element(root, "block-device-mbr", provides=["block-device"])
    (tmp_path / "built-in").mkdir()
    monkeypatch.setattr(find, "BUILT_IN_ELEMENTS", tmp_path / "built-in")
    monkeypatch.setenv("ELEMENTS_PATH", str(root))
    return root


def test_the_resolved_names_stand_on_one_line(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert element_info.main(["system"]) == 0
    assert capsys.readouterr() == ("a b system\n", "")


def test_the_architecture_comes_from_the_environment(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCH", "arm64")
    assert element_info.main(["system", "vm"]) == 0
    assert capsys.readouterr().out == "a b system block-device-efi vm\n"


@pytest.mark.parametrize("option", ["-e", "--env"])
def test_with_env_bash_can_evaluate_the_output(
    catalogue: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert element_info.main([option, "system"]) == 0
    script = capsys.readouterr().out + (
        'echo "$IMAGE_ELEMENT"; echo "$IMAGE_ELEMENT_YAML"; '
        "bash -c 'eval declare -A found=($(get_image_element_array)); echo \"${found[b]}\"'"
    )
    shown = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0] == "a b system"
    assert shown[1:4] == [f'{name}: "{catalogue}/{name}"' for name in ("a", "b", "system")]
    assert shown[-1] == f"{catalogue}/b"


def test_bash_imports_the_function_from_the_environment(tmp_path: Path) -> None:
    elements = [Element("a", tmp_path / 'it\'s a "dir"'), Element("b", tmp_path / "b")]
    script = 'eval declare -A found=($(get_image_element_array)); echo "${found[a]}:${found[b]}:${#found[@]}"'
    shown = subprocess.run(
        ["/bin/bash", "-euc", script], env=element_variables(elements), capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"{elements[0].path}:{elements[1].path}:2\n"


def test_the_yaml_is_sorted_and_survives_odd_names(tmp_path: Path) -> None:
    names = ["z", "no", "1.0", "a", "#x", "true"]
    text = image_element_yaml([Element(name, tmp_path / name) for name in names])
    (tmp_path / "map.yaml").write_text(text)
    root = read_document(tmp_path / "map.yaml").root
    assert isinstance(root, Table)
    assert [key.text for key, _ in root.entries] == sorted(names)
    assert '"no": ' in text
    assert '"true": ' in text
    assert "export IMAGE_ELEMENT='z no 1.0 a #x true'" in shell_definitions(
        [Element(name, tmp_path / name) for name in names]
    )


def test_a_mistake_is_one_message_on_standard_error(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert element_info.main(["sistem"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == 'unknown element "sistem", asked for by the command line\n  hint: did you mean system?\n'


def test_elements_that_hide_others_are_told_on_standard_error(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_element(tmp_path / "own", "a")
    monkeypatch.setenv("ELEMENTS_PATH", f"{tmp_path}/own:{catalogue}")
    assert element_info.main(["system"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "a b system\n"
    assert "own/a hides" in shown.err
