"""A matrix file: what it says, and what is wrong with it, with the place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.hook_build import ELEMENTS as CATALOGUE

from dibble.errors import RecipeError
from dibble.fleet.cells import Work, cells_of
from dibble.fleet.read_matrix import axis_names, read_matrix
from dibble.fleet.schema import json_schema
from dibble.fleet.spec import BootCheck, Spec
from dibble.recipe.merge import Host

pytestmark = pytest.mark.unit

HOST = Host(machine="x86_64", home=Path("/home/me"), cwd=Path("/work"), catalogue=CATALOGUE)


def read(folder: Path, text: str) -> Spec:
    path = folder / "m.yaml"
    path.write_text(text)
    return read_matrix(path, shown="m.yaml")


def cells(folder: Path, text: str, **environ: str) -> dict[str, Work]:
    return {work.cell.name: work for work in cells_of(read(folder, text), environ, HOST)}


def complaint(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(RecipeError) as caught:
        cells(folder, text, **environ)
    assert caught.value.exit_status == 2
    return str(caught.value)


SQUARE = """\
settings: {elements: [vm]}
axes:
  distribution: [debian-minimal, ubuntu-minimal]
  format: [qcow2, tar]
"""


def test_each_value_meets_each_of_the_others(tmp_path: Path) -> None:
    found = cells(tmp_path, SQUARE)
    assert list(found) == [
        "local/debian-minimal-qcow2",
        "local/debian-minimal-tar",
        "local/ubuntu-minimal-qcow2",
        "local/ubuntu-minimal-tar",
    ]
    cell = found["local/ubuntu-minimal-tar"]
    assert cell.recipe == {"elements": ["vm", "ubuntu-minimal"], "outputs": "tar"}
    assert cell.cell.axes == {"host": "local", "distribution": "ubuntu-minimal", "format": "tar"}
    assert (cell.cell.host, cell.cell.target) == ("local", "ubuntu-minimal-tar")


def test_each_kind_of_axis_is_what_it_says_in_a_recipe(tmp_path: Path) -> None:
    text = """\
axes:
  distribution: [debian-minimal]
  release: [12]
  architecture: [amd64]
  environment: [openstack]
  DIB_BOOTLOADER: [grub]
  fs-type: [xfs]
  variant:
    - {name: big, elements: vm, packages: [vim], size: 4, environment: {A: 1.10}}
"""
    (work,) = cells(tmp_path, text).values()
    assert work.recipe == {
        "elements": ["debian-minimal", "vm"],
        "environment": {"DIB_RELEASE": "12", "DIB_BOOTLOADER": "grub", "A": "1.10"},
        "arch": "amd64",
        "preset": "openstack",
        "fs-type": "xfs",
        "packages": ["vim"],
        "size": "4",
    }
    assert work.cell.name == "local/debian-minimal-12-amd64-openstack-grub-xfs-big"


def test_a_recipe_is_what_every_cell_begins_with(tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_text("elements: [vm]\nelements-path: [own]\nenvironment: {A: 1}\n")
    (tmp_path / "own").mkdir()
    (work,) = cells(tmp_path, "recipe: image.yaml\naxes: {distribution: [debian-minimal]}\n").values()
    assert work.recipe["elements"] == ["vm", "debian-minimal"]
    assert work.recipe["elements-path"] == [str(tmp_path / "own")]


def test_how_cells_are_run_is_said_for_all_or_for_some(tmp_path: Path) -> None:
    text = """\
timeout: 2h
retries: 1
boot: true
axes:
  distribution: [debian-minimal, {name: slow, elements: ubuntu-minimal, timeout: 4h, boot: false, allow-failure: true}]
  format: [qcow2, {name: live, outputs: iso, boot: {marker: ready, timeout: 10m}}]
allow-failure: [{distribution: debian-minimal, format: live}]
"""
    found = cells(tmp_path, text)
    usual, slow = found["local/debian-minimal-qcow2"].policy, found["local/slow-qcow2"].policy
    assert (usual.timeout_s, usual.retries, usual.boot, usual.allow_failure) == (7200, 1, BootCheck(), False)
    assert (slow.timeout_s, slow.retries, slow.boot, slow.allow_failure) == (14400, 1, False, True)
    assert found["local/debian-minimal-live"].policy.boot == BootCheck(600, marker="ready")
    assert found["local/debian-minimal-live"].cell.allow_failure


def test_a_cell_can_be_left_out_or_added(tmp_path: Path) -> None:
    text = (
        SQUARE
        + """\
exclude: [{distribution: ubuntu-minimal, format: tar}]
include: [{distribution: fedora-minimal, format: tar, settings: {packages: [vim]}}]
"""
    )
    found = cells(tmp_path, text)
    assert "local/ubuntu-minimal-tar" not in found
    assert found["local/fedora-minimal-tar"].recipe["packages"] == ["vim"]


def test_a_cell_needs_the_one_that_differs_in_what_the_rule_names(tmp_path: Path) -> None:
    found = cells(tmp_path, SQUARE + "needs: [{cells: {format: qcow2}, after: {format: tar}}]\n")
    assert found["local/debian-minimal-qcow2"].cell.needs == ("local/debian-minimal-tar",)
    assert found["local/debian-minimal-tar"].cell.needs == ()


def test_a_host_that_is_built_is_a_row_that_its_cells_need(tmp_path: Path) -> None:
    text = """\
axes:
  host: [local, {name: deb, build: {elements: debian-minimal, packages: [python3]}}, {name: given, tree: trees/x.tar}]
  distribution: [debian-minimal]
"""
    found = cells(tmp_path, text)
    assert list(found) == ["deb/hostgen", "local/debian-minimal", "deb/debian-minimal", "given/debian-minimal"]
    assert found["deb/hostgen"].recipe["outputs"] == ["tar"]
    assert found["deb/debian-minimal"].cell.needs == ("deb/hostgen",)
    assert found["given/debian-minimal"].host.tree == tmp_path / "trees/x.tar"


def test_cells_that_share_layers_are_known(tmp_path: Path) -> None:
    found = cells(tmp_path, SQUARE)
    one, two = found["local/debian-minimal-qcow2"], found["local/debian-minimal-tar"]
    assert (one.base, one.tree, one.image) == (two.base, two.tree, "debian-minimal")
    assert found["local/ubuntu-minimal-tar"].base != one.base


def test_pairs_that_cannot_be_are_known_before_anything_runs(tmp_path: Path) -> None:
    text = """\
axes:
  distribution: [fedora-minimal, {name: own, elements: debian-minimal, architectures: [arm64]}]
  architecture: [amd64, i386]
"""
    found = cells(tmp_path, text)
    assert {name: work.unsupported for name, work in found.items()} == {
        "local/fedora-minimal-amd64": "",
        "local/fedora-minimal-i386": "there is no fedora for i386",
        "local/own-amd64": "there is no debian for amd64",
        "local/own-i386": "there is no debian for i386",
    }


def test_a_key_changes_with_whatever_decides_the_result(tmp_path: Path) -> None:
    (tmp_path / "own/an-element").mkdir(parents=True)
    script = tmp_path / "own/an-element/README.rst"
    script.write_text("one")
    text = "settings: {elements-path: [own]}\n" + "axes: {distribution: [debian-minimal]}\n"
    name = "local/debian-minimal"

    def key(**environ: str) -> str:
        return cells(tmp_path, text, **environ)[name].cell.key

    first = key()
    assert key() == first == key(TERM="xterm")
    assert key(DIB_RELEASE="forky") != first
    script.write_text("two")
    assert key() != first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "axes: {distribtion: [debian-minimal]}",
            'm.yaml:1:8: unknown axis "distribtion"\n  hint: did you mean distribution?',
        ),
        ("axis: {}", 'm.yaml:1:1: unknown key "axis"\n  hint: did you mean axes?'),
        ("[]", "m.yaml:1:1: a matrix is a map of keys, this is a list"),
        ("name: x", "m.yaml: the matrix has no axis"),
        ("axes: {distribution: []}", "m.yaml:1:22: the axis distribution takes a list of values"),
        ("axes: {distribution: [a, a]}", 'the axis distribution has "a" twice'),
        (
            "axes: {distribution: [debian-mnimal]}",
            'm.yaml:1:23: unknown element "debian-mnimal"\n  hint: did you mean debian-minimal',
        ),
        ("axes:\n  format: [qcow2]\n", "m.yaml:2:12: cell local/qcow2: no element given"),
        (
            "axes: {distribution: [debian-minimal], format: [qcow3]}",
            'cell local/debian-minimal-qcow3: unknown output format "qcow3"',
        ),
        (
            "axes: {distribution: [{name: x, elments: y}]}",
            'm.yaml:1:33: unknown key "elments"\n  hint: did you mean elements',
        ),
        (
            "axes: {distribution: [debian-minimal], size: [big]}",
            "m.yaml:1:47: a value of the axis size takes a number of GiB",
        ),
        ("axes: {host: [deb]}", 'm.yaml:1:15: the host "deb" has no tree'),
        ("axes: {host: [{name: deb}]}", 'the host "deb" takes one of tree and build'),
        ("axes: {variant: [big]}", 'the variant "big" says nothing'),
        ("retries: many\naxes: {format: [tar]}", "m.yaml:1:10: retries takes a whole number"),
        ("settings: {name: x}\naxes: {format: [tar]}", "m.yaml:1:12: name is made of the cell's name"),
        (
            "boot: {tmeout: 3}\naxes: {format: [tar]}",
            'm.yaml:1:8: unknown key "tmeout"\n  hint: did you mean timeout or memory?',
        ),
        (SQUARE + "exclude: [{format: raw}]", 'm.yaml:5:20: unknown value of the axis format: "raw"'),
        (
            SQUARE + "exclude: [{colour: red}]",
            'm.yaml:5:12: unknown axis "colour"\n  hint: known axes are: distribution, format',
        ),
        (
            SQUARE + "exclude: [{format: tar}]\ninclude: [{distribution: debian-minimal, format: tar}]",
            "m.yaml:6:11: the cell local/debian-minimal-tar is included, and excluded in line 5",
        ),
        (SQUARE + "exclude: [{format: [tar, qcow2]}]", "no cell is left"),
        (SQUARE + "needs: [{cells: {format: tar}}]", "m.yaml:5:9: after is missing"),
        (SQUARE + "include: [{format: tar}]", "two cells are named local/debian-minimal-tar"),
        (
            SQUARE + "exclude: [{format: tar}]\nneeds: [{cells: {format: qcow2}, after: {format: tar}}]",
            "m.yaml:6:9: the cell local/debian-minimal-qcow2 needs one with format tar, and there is none",
        ),
        (
            SQUARE + "needs: [{cells: {format: qcow2}, after: {format: tar}}, "
            "{cells: {format: tar}, after: {format: qcow2}}]",
            "these cells wait for each other: local/debian-minimal-qcow2 needs local/debian-minimal-tar needs",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(tmp_path, text)


def test_an_exclusion_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    text = SQUARE + "include: [{distribution: fedora-minimal, format: tar}]\n"
    text += "exclude: [{distribution: fedora-minimal, format: qcow2}]\n"
    assert "there is no cell with distribution fedora-minimal, format qcow2 to exclude" in complaint(tmp_path, text)


def test_a_matrix_that_explodes_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    many = ", ".join(map(str, range(23)))
    text = f"axes: {{distribution: [debian-minimal], A: [{many}], B: [{many}]}}\n"
    said = complaint(tmp_path, text)
    assert "the matrix has 529 cells (1 distribution x 23 A x 23 B); more than 500" in said
    assert len(cells(tmp_path, text + "max-cells: 529\n")) == 529


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no matrix m\.yaml"):
        read_matrix(tmp_path / "m.yaml", shown="m.yaml")


def test_the_schema_knows_every_key_and_axis_values() -> None:
    schema = json_schema()
    assert set(schema["properties"]) >= {"axes", "include", "exclude", "needs", "allow-failure", "boot", "settings"}
    assert schema["properties"]["settings"]["$ref"] == "#/$defs/Recipe"
    assert "elements" in schema["$defs"]["ValueKeys"]["properties"]
    assert "x-part" not in str(schema)
    assert "size" in axis_names()
    assert "name" not in axis_names()


EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "matrix"


def test_the_example_has_the_whole_table_of_hosts_and_targets() -> None:
    works = cells_of(read_matrix(EXAMPLES / "table.yaml", shown="table.yaml"), {}, HOST)
    hosts, targets = {work.cell.host for work in works}, {work.cell.target for work in works}
    assert (len(hosts), len(targets), len(works)) == (11, 17, 11 * 17)
    assert {"hostgen", "tox"} < targets
    assert not [work.cell.name for work in works if work.unsupported and not work.cell.allow_failure]


def test_the_small_example_boots_what_can_boot() -> None:
    works = cells_of(read_matrix(EXAMPLES / "square.yaml", shown="square.yaml"), {}, HOST)
    assert len(works) == 4
    assert {work.policy.boot for work in works} == {BootCheck(timeout_s=600)}
