"""Which boot loader an image gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dibble import registry
from dibble.boot.base import NoCode
from dibble.boot.choose import loader_of
from dibble.boot.grub import Grub
from dibble.errors import DiskLayoutError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.boot.base import BootSetup

pytestmark = pytest.mark.unit


class Marked:
    """A boot loader for trees with a file `mark`."""

    tools: tuple[str, ...] = ()

    def is_set_up(self, root: Path) -> bool:
        return (root / "mark").exists()

    def install(self, setup: BootSetup) -> NoCode:
        return NoCode()


@pytest.fixture
def with_menu(tmp_path: Path) -> Path:
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/grub/grub.cfg").write_text("menuentry\n")
    return tmp_path


def test_a_tree_with_a_menu_gets_grub_unless_it_is_to_have_none(with_menu: Path) -> None:
    assert isinstance(loader_of(with_menu, ""), Grub)
    assert isinstance(loader_of(with_menu, "grub"), Grub)
    assert loader_of(with_menu, "none") is None


def test_a_tree_that_is_ready_for_nothing_gets_nothing(tmp_path: Path) -> None:
    assert loader_of(tmp_path, "") is None
    with pytest.raises(DiskLayoutError, match="has not been made ready for the boot loader grub"):
        loader_of(tmp_path, "grub")


def test_another_loader_is_found_by_its_name(with_menu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN["boot_loaders"], "marked", f"{__name__}:Marked")
    with pytest.raises(DiskLayoutError, match="has not been made ready for the boot loader marked"):
        loader_of(with_menu, "marked")
    (with_menu / "mark").touch()
    assert type(loader_of(with_menu, "marked")).__name__ == "Marked"
    assert isinstance(loader_of(with_menu, ""), Grub)


def test_a_loader_that_nobody_knows_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='unknown boot loader "grubb"') as caught:
        loader_of(tmp_path, "grubb")
    assert caught.value.hint == "did you mean grub?"
