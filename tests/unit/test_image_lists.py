"""The YAML lists of diskimage-builder: what they become, and what is told of a mistake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from dibble.cli import diskimage_builder
from dibble.errors import RecipeError
from dibble.recipe.image_lists import ImageCommand, image_commands
from dibble.recipe.options import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

EVERYTHING = """\
- elements: [an-os, vm]
  packages: [vim, git]
  docker-target: me/web:1
  install-type: package
  ramdisk-element: dracut-ramdisk
  root-label: root
  qemu-img-options: {compat: 1.1, lazy: "on"}
  offline: true
  no-tmpfs: yes
  mkfs-options: -i 4096
  mkfs-journal-size: 32
  min-tmpfs: 3
  max-online-resize: 1000
  image-cache: /var/cache
  image-extra-size: 100
  image-size: 5
  checksum: true
  logfile: log
  skip-base: true
  clear: true
  uncompressed: true
  debug-trace: 2
  types: [qcow2, raw]
  arch: amd64
  imagename: web
"""


def commands(tmp_path: Path, *texts: str) -> tuple[ImageCommand, ...]:
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text)
    return image_commands(files)


def test_every_key_becomes_its_option_in_a_fixed_order(tmp_path: Path) -> None:
    (command,) = commands(tmp_path, EVERYTHING)
    assert str(command) == (
        "disk-image-create -o web -a amd64 -t qcow2,raw -x -x -u -c --logfile log --checksum --image-size 5"
        " --image-extra-size 100 --image-cache /var/cache --max-online-resize 1000 --min-tmpfs 3 --mkfs-journal-size 32"
        " --mkfs-options '-i 4096' --no-tmpfs --offline --qemu-img-options compat=1.1,lazy=on --root-label root"
        " --ramdisk-element dracut-ramdisk --install-type package --docker-target me/web:1 -p vim,git -n an-os vm"
    )
    known = {flag for option in OPTIONS for flag in option.flags}
    assert {word for word in command.arguments if word.startswith("--")} <= known


def test_entries_of_one_name_are_merged_across_files(tmp_path: Path) -> None:
    first = "- imagename: web\n  elements: [an-os]\n  environment: {A: 1, B: two words}\n  image-size: 5\n"
    second = "- imagename: db\n  elements: [an-os]\n- imagename: web\n  elements: [vm]\n  image-size: 6\n"
    third = "- environment: {A: 3}\n"
    found = commands(tmp_path, first, second, third)
    assert [str(command) for command in found] == [
        "A=3 B='two words' disk-image-create -o web --image-size 6 an-os vm",
        "disk-image-create -o db an-os",
    ]


def test_an_entry_without_a_name_belongs_to_the_one_before(tmp_path: Path) -> None:
    (first,) = commands(tmp_path, "- elements: [an-os]\n- elements: [vm]\n")
    assert str(first) == "disk-image-create -o image an-os vm"
    found = commands(tmp_path, "- imagename: web\n- imagename: db\n", "- elements: [vm]\n")
    assert [str(command) for command in found] == ["disk-image-create -o web", "disk-image-create -o db vm"]


def test_a_ramdisk_is_made_by_its_own_command(tmp_path: Path) -> None:
    (command,) = commands(tmp_path, "- ramdisk: true\n  elements: [an-os]\n")
    assert str(command) == "ramdisk-image-create -o image an-os"


def test_what_is_not_asked_for_is_left_out(tmp_path: Path) -> None:
    text = "- {types: [], root-label: '', debug-trace: 0, offline: false, packages: [], elements: [an-os]}\n"
    (command,) = commands(tmp_path, text)
    assert str(command) == "disk-image-create -o image an-os"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("elements: [a]\n", 1, "not a list"),
        ("- [a]\n", 1, "not a map"),
        ("- elements: [a]\n  typs: [raw]\n", 2, 'unknown key "typs"'),
        ("- elements: a\n", 1, "not a list"),
        ("- arch: amd63\n", 1, '"amd63"'),
        ("- types:\n  - qcow2\n  - qcow3\n", 3, '"qcow3"'),
        ("- image-size: 0\n", 1, "of at least 1"),
        ("- image-size: 1.5\n", 1, "whole number"),
        ("- debug-trace: 3\n", 1, "from 0 to 2"),
        ("- offline: maybe\n", 1, "neither true nor false"),
        ("- environment: [A]\n", 1, "not a map"),
        ("- install-type: repo\n", 1, '"repo"'),
        ("- a: [\n", 2, "not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, line: int, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        commands(tmp_path, text)
    assert told in caught.value.message
    assert str(caught.value.where.file).endswith("0.yaml")
    assert caught.value.where.line == line


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diskimage_builder.main([str(tmp_path / "no.yaml")]) == 1
    assert "no.yaml" in capsys.readouterr().err


def test_a_dry_run_prints_each_command_and_an_empty_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "images.yaml"
    file.write_text("- {imagename: web, elements: [an-os]}\n- {imagename: db, elements: [an-os]}\n")
    assert diskimage_builder.main(["--dry-run", str(file)]) == 0
    said = capsys.readouterr()
    assert said.err == "disk-image-create -o web an-os\n\ndisk-image-create -o db an-os\n\n"
    assert said.out == ""


@pytest.mark.parametrize(("stop", "called"), [(False, ["web", "db", "log"]), (True, ["web", "db"])])
def test_the_others_are_built_when_one_fails(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stop: bool,
    called: list[str],
) -> None:
    """A stand-in for Python notes the names; the image called db fails with 7."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/bash\necho "$VALUE ${{*: -3}}" >> {tmp_path}/calls\n[[ ${{*: -2}} != db* ]] || exit 7\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    file = tmp_path / "images.yaml"
    entries = [
        f"- {{imagename: {name}, elements: [an-os], environment: {{VALUE: v}}}}\n" for name in ("web", "db", "log")
    ]
    file.write_text("".join(entries))
    assert diskimage_builder.main([*(["--stop-on-failure"] if stop else []), str(file)]) == 7
    assert (tmp_path / "calls").read_text().splitlines() == [f"v -o {name} an-os" for name in called]
    said = capsys.readouterr().err
    assert "1 of 3 images failed: db (status 7)" in said
    assert ("1 not begun" in said) is stop
