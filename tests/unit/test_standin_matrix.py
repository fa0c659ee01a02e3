"""A matrix written for real mirrors gets those of stand-ins, and nothing that it says itself is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.standins.matrix import elements_in, with_mirrors

from dibble.fleet.read_matrix import read_matrix
from dibble.recipe.read import parse

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/matrix"
GIVEN = {"fedora-minimal": {"DIB_DISTRIBUTION_MIRROR": "http://near/fedora", "DIB_RELEASE": "1"}}


def test_hosts_and_targets_have_their_mirrors() -> None:
    data = parse((EXAMPLES / "hosts.yaml").read_text(), "hosts.yaml", "matrix").data
    assert {"debian-minimal", "fedora-minimal", "gentoo", "arch-minimal"} <= set(elements_in(data))
    axes = with_mirrors(data, EXAMPLES, lambda element: GIVEN.get(element, {}))["axes"]
    wanted = {"DIB_DISTRIBUTION_MIRROR": "http://near/fedora", "DIB_RELEASE": "44"}
    hosts = {host["name"]: host["build"].get("environment") for host in axes["host"] if host != "local"}
    assert hosts["fedora-44"] == wanted
    assert hosts["debian-12"] == {"DIB_RELEASE": "bookworm"}
    assert [value["environment"] for value in axes["distribution"]] == [{"DIB_RELEASE": "trixie"}, wanted]


def test_plain_words_and_relative_paths_still_mean_the_same(tmp_path: Path) -> None:
    text = "recipe: r.yaml\nsettings: {elements-path: e}\naxes: {distribution: [fedora-minimal, x], format: [tar]}\n"
    found = with_mirrors(parse(text, "m.yaml", "matrix").data, tmp_path, lambda element: GIVEN.get(element, {}))
    assert (found["recipe"], found["settings"]) == (f"{tmp_path}/r.yaml", {"elements-path": [f"{tmp_path}/e"]})
    first = {"name": "fedora-minimal", "elements": "fedora-minimal", "environment": GIVEN["fedora-minimal"]}
    assert found["axes"]["distribution"] == [first, {"name": "x", "elements": "x"}]
    assert found["axes"]["format"] == ["tar"]


@pytest.mark.parametrize("name", ["hosts.yaml", "square.yaml", "table.yaml"])
def test_the_examples_can_be_read(name: str) -> None:
    assert read_matrix(EXAMPLES / name, shown=name).axes
