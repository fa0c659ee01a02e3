"""Presets of environments: what they set, who wins over them, and what is wrong in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dibble import registry
from dibble.errors import OutputError, RecipeError, UsageError
from dibble.recipe.load import request_of
from dibble.recipe.merge import Host
from dibble.recipe.model import Gate
from dibble.recipe.presets import PATH_VARIABLE, preset_names, read_preset
from dibble.tree.gate import check_gate

if TYPE_CHECKING:
    from dibble.recipe.model import Request

pytestmark = pytest.mark.unit

CATALOGUE = Path(registry.__file__).parent / "catalogue" / "elements"
SHIPPED = ["azure", "baremetal", "docker", "ec2", "gce", "ironic", "kvm", "openstack", "vmware"]
MINE = """\
summary: A cloud of our own
elements: [vm, devuser]
layout: block-device-gpt
outputs: [raw]
size: 4
packages: [less]
environment: {COLOUR: blue, SHAPE: round}
machine: {disk-bus: sata, minimum-memory: 700}
gate: {present: [bin/sh], absent: [boot]}
"""


def request(cwd: Path, *words: str, env: dict[str, str] | None = None, **settings: object) -> Request:
    host = Host(machine="x86_64", home=cwd, cwd=cwd, catalogue=CATALOGUE)
    return request_of(words, settings, {PATH_VARIABLE: "presets", **(env or {})}, host=host)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text(MINE)
    return tmp_path


def test_these_are_shipped() -> None:
    assert preset_names({}, Path("/")) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_names_elements_that_there_are_and_one_layout_at_most(name: str) -> None:
    preset = read_preset(name, {}, Path("/"))
    for element in (*preset.asked.elements, *filter(None, [preset.layout])):
        assert (CATALOGUE / element).is_dir(), element
    assert preset.target.summary
    assert preset.target.gate.absent
    assert not preset.target.gate.present or preset.asked.elements


def test_a_preset_fills_in_what_the_user_does_not_say(cwd: Path) -> None:
    made = request(cwd, "debian-minimal", target="mine")
    assert made.elements == ("debian-minimal", "vm", "devuser")
    assert made.outputs == ("raw",)
    assert made.name == "debian-minimal-mine"
    assert made.layout == "block-device-gpt"
    assert made.packages == ("less",)
    assert made.image_size_bytes == 4 << 30
    assert made.environment["COLOUR"] == "blue"
    assert made.target is not None
    assert made.target.machine.disk_bus == "sata"
    assert made.target.machine.minimum_memory_mib == 700
    assert made.target.gate.present == ("bin/sh",)
    assert ("size", str(4 << 30)) in made.target.set
    assert made.target.overruled == ()


def test_the_user_s_word_wins_over_the_preset_s_and_the_plan_can_tell(cwd: Path) -> None:
    made = request(
        cwd, "debian-minimal", "vm", env={"COLOUR": "red", "DIB_IMAGE_SIZE": "9"}, target="mine", outputs=("tar",)
    )
    assert made.elements == ("debian-minimal", "vm", "devuser"), "what is named already is not added again"
    assert made.outputs == ("tar",)
    assert made.image_size_bytes == 9 << 30
    assert made.environment["COLOUR"] == "red"
    assert made.environment["SHAPE"] == "round"
    assert made.target is not None
    assert made.target.overruled == (("outputs", "raw"), ("size", str(4 << 30)), ("COLOUR", "blue"))


def test_a_recipe_names_the_preset_and_wins_over_it(cwd: Path) -> None:
    (cwd / "image.yaml").write_text(
        "elements: [debian-minimal]\npreset: mine\noutputs: [qcow2]\nenvironment: {SHAPE: square}\n"
    )
    made = request(cwd, "image.yaml")
    assert made.target is not None
    assert made.name == "image"
    assert (made.target.name, made.outputs, made.environment["SHAPE"]) == ("mine", ("qcow2",), "square")


def test_the_variable_names_a_preset_and_does_not_reach_the_hooks(cwd: Path) -> None:
    made = request(cwd, "debian-minimal", env={"DIBBLE_ENVIRONMENT": "mine"})
    assert made.target is not None
    assert not [name for name in made.environment if name.startswith("DIBBLE_ENVIRONMENT")]
    cleared = request(cwd, "debian-minimal", env={"DIBBLE_ENVIRONMENT": "mine"}, clear=True)
    assert cleared.target is None, "--clear drops the caller's variables"


def test_a_disk_of_one_s_own_takes_the_place_of_the_preset_s(cwd: Path) -> None:
    made = request(cwd, "debian-minimal", env={"DIB_BLOCK_DEVICE_CONFIG": "- local_loop: {name: d}"}, target="mine")
    assert made.layout == ""
    assert made.target is not None
    assert ("layout", "block-device-gpt") in made.target.overruled


def test_a_format_that_nobody_writes_is_named_with_its_environment(cwd: Path) -> None:
    (cwd / "presets" / "mine.yaml").write_text("summary: s\noutputs: [hologram]\n")
    with pytest.raises(UsageError, match='environment "mine" takes the format "hologram"') as caught:
        request(cwd, "debian-minimal", target="mine")
    assert "qcow2" in caught.value.hint
    assert request(cwd, "debian-minimal", target="mine", outputs=("raw",)).outputs == ("raw",)


def test_an_unknown_environment_is_refused_with_the_nearest(cwd: Path) -> None:
    with pytest.raises(UsageError, match='unknown environment "opnstack"') as caught:
        request(cwd, "debian-minimal", target="opnstack")
    assert "openstack" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("elements: [vm]\n", 1, "summary"),
        ("summary: s\nlayuot: x\n", 2, 'unknown key "layuot"'),
        ("summary: s\ngate: {present: 3, absent: {}}\n", 2, "gate"),
        ("summary: s\nmachine: {minimum-memory: lots}\n", 2, "machine"),
    ],
)
def test_what_is_wrong_in_a_preset_is_told_with_its_line(cwd: Path, text: str, line: int, message: str) -> None:
    (cwd / "presets" / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        request(cwd, "debian-minimal", target="mine")
    assert caught.value.where.line == line


def test_a_directory_of_presets_that_is_not_there_is_refused(cwd: Path) -> None:
    with pytest.raises(UsageError, match=PATH_VARIABLE):
        request(cwd, "debian-minimal", env={PATH_VARIABLE: "nowhere"}, target="mine")


def test_a_tree_that_is_not_fit_for_its_environment_is_refused_with_every_reason(cwd: Path) -> None:
    target = request(cwd, "debian-minimal", target="mine").target
    assert target is not None
    root = cwd / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/sh").touch()
    with pytest.raises(OutputError, match='nothing in it matches "bin/sh"'):
        check_gate(root, target)  # a link may lead out of the tree
    fit = replace(target, gate=Gate(("usr/*/sh",), ("boot/vmlinuz-*",)))
    check_gate(root, fit)
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-6").touch()
    with pytest.raises(OutputError, match="not fit for the environment mine: it has /boot/vmlinuz-6"):
        check_gate(root, fit)


def test_an_installed_package_adds_an_environment(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = cwd / "site" / "theirs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dibble.environments]\nmoon = theirs:PRESET\n")
    (cwd / "site" / "moon.yaml").write_text("summary: The moon\noutputs: [tar]\n")
    (cwd / "site" / "theirs.py").write_text(
        "from pathlib import Path\nPRESET = Path(__file__).with_name('moon.yaml')\n"
    )
    monkeypatch.syspath_prepend(str(cwd / "site"))
    assert request(cwd, "debian-minimal", target="moon").outputs == ("tar",)
    assert "moon" in preset_names({}, cwd)
