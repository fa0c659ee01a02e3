from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.element_trees import make_element

from dibble.elements.chroot_path import within
from dibble.elements.distros import FAMILIES, family_of, release_names
from dibble.elements.engine_verbs import Context, VerbResult, pkg_map
from dibble.elements.readers.pkg_map import PackageMap, read_pkg_map
from dibble.errors import ElementError

pytestmark = pytest.mark.unit

SECTIONS = {
    "release": {"debian": {"trixie": {"tool": "by-release"}}, "centos": {"9": {"tool": "by-9"}}},
    "distro": {"debian": {"tool": "by-distro", "other": "distro-other"}},
    "family": {"debian": {"tool": "by-family", "fam": "family-fam"}, "redhat": {"tool": "by-redhat"}},
    "default": {"tool": "by-default", "none": "", "many": "one two"},
}


def looked_up(sections: dict[str, Any], name: str, distro: str, release: str = "") -> str | None:
    return PackageMap(Path("pkg-map"), sections).lookup(name, distro, release)


@pytest.mark.parametrize(
    ("name", "distro", "release", "packages"),
    [
        ("tool", "debian", "trixie", "by-release"),
        ("tool", "debian", "sid", "by-distro"),
        ("tool", "ubuntu", "noble", "by-family"),
        ("tool", "gentoo", "", "by-default"),
        ("tool", "unheard-of", "", "by-default"),
        ("tool", "rocky", "9", "by-redhat"),
        ("tool", "centos", "9-stream", "by-9"),
        ("fam", "debian", "trixie", "family-fam"),
        ("other", "debian", "trixie", "distro-other"),
        ("other", "ubuntu", "noble", None),
        ("none", "debian", "trixie", ""),
    ],
)
def test_the_most_particular_section_wins(name: str, distro: str, release: str, packages: str | None) -> None:
    assert looked_up(SECTIONS, name, distro, release) == packages


@pytest.mark.parametrize("stream", ["8", "9", "10"])
def test_stream_releases_are_found_under_their_number(stream: str) -> None:
    sections = {"release": {"centos": {stream: {"a": "by-number"}}}}
    assert looked_up(sections, "a", "centos", f"{stream}-stream") == "by-number"
    sections["release"]["centos"][f"{stream}-stream"] = {"a": "by-stream"}
    assert looked_up(sections, "a", "centos", f"{stream}-stream") == "by-stream"
    assert list(release_names("trixie")) == ["trixie"]


def test_every_distribution_has_its_family() -> None:
    assert {distro: family_of(distro) for distro in ("almalinux", "rocky", "openeuler", "rhel")} == dict.fromkeys(
        ("almalinux", "rocky", "openeuler", "rhel"), "redhat"
    )
    assert family_of("debian") == family_of("ubuntu") == "debian"
    assert family_of("opensuse") == "suse"
    assert family_of("gentoo") == "gentoo"
    assert family_of("arch") == "arch"
    assert family_of("haiku") is None
    assert len({distro for distros in FAMILIES.values() for distro in distros}) == sum(map(len, FAMILIES.values()))


@pytest.mark.parametrize(
    "sections",
    [{"default": {"a": 3}}, {"default": []}, {"distro": {"debian": "x"}}, {"release": {"debian": {"trixie": 1}}}],
)
def test_a_map_of_the_wrong_shape_is_an_error_that_names_the_file(sections: dict[str, Any]) -> None:
    with pytest.raises(ElementError) as caught:
        looked_up(sections, "a", "debian", "trixie")
    assert str(caught.value.where) == "pkg-map"


def test_a_map_that_is_not_json_is_an_error_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "pkg-map").write_text('{\n  "default": {,}\n}\n')
    with pytest.raises(ElementError, match="not JSON") as caught:
        read_pkg_map(tmp_path / "pkg-map")
    assert caught.value.where.line == 2


# --- the verb


@pytest.fixture
def context(tmp_path: Path) -> Context:
    element = make_element(tmp_path / "elements", "e", {"pkg-map": json.dumps(SECTIONS)})
    (tmp_path / "target").mkdir()
    return Context((element,), {"DISTRO_NAME": "debian", "DIB_RELEASE": "trixie"}, tmp_path / "target")


def test_each_name_gives_a_line_and_empty_mappings_give_none(context: Context) -> None:
    answer = pkg_map(["--element", "e", "many", "none", "tool"], context)
    assert answer == VerbResult(stdout=("one two", "by-release"))


def test_distribution_and_release_can_be_given(context: Context) -> None:
    argv = ["--element", "e", "--distro", "centos", "--release", "9", "tool"]
    assert pkg_map(argv, context).stdout == ("by-9",)


def test_a_prefix_stands_in_front_of_every_line(context: Context) -> None:
    assert pkg_map(["--element", "e", "--prefix", "pkg:", "many", "tool"], context).stdout == (
        "pkg:one two",
        "pkg:by-release",
    )


def test_an_unmapped_name_is_status_1_and_nothing_is_printed(context: Context) -> None:
    answer = pkg_map(["--element", "e", "tool", "absent"], context)
    assert (answer.stdout, answer.status) == ((), 1)
    assert "absent" in answer.stderr[0]
    assert "debian trixie" in answer.stderr[0]


def test_with_missing_ok_unmapped_names_stand_for_themselves(context: Context) -> None:
    answer = pkg_map(["--element", "e", "--missing-ok", "absent", "tool", "none"], context)
    assert answer == VerbResult(stdout=("absent", "by-release"))


def test_without_a_map_the_status_is_2_unless_missing_is_ok(context: Context) -> None:
    assert pkg_map(["--element", "mapless", "a"], context).status == 2
    assert pkg_map(["--pkg-map", "/no/such", "a"], context).status == 2
    assert pkg_map(["--element", "mapless", "--missing-ok", "b", "a"], context) == VerbResult(stdout=("b", "a"))


@pytest.mark.parametrize("argv", [[], ["a"], ["--element", "e"], ["--element"], ["--element", "e", "--nope", "a"]])
def test_missing_or_wrong_arguments_are_status_1(context: Context, argv: list[str]) -> None:
    answer = pkg_map(argv, context)
    assert (answer.stdout, answer.status) == ((), 1)
    assert answer.stderr


def test_without_a_distribution_the_status_is_1(context: Context) -> None:
    nowhere = Context(context.elements, {}, context.target_root)
    assert pkg_map(["--element", "e", "--missing-ok", "a"], nowhere).status == 1
    assert pkg_map(["--element", "e", "--distro", "debian", "tool"], nowhere).stdout == ("by-distro",)


def test_the_map_in_the_target_goes_before_the_elements_own(context: Context) -> None:
    maps = context.target_root / "usr/share/pkg-map"
    maps.mkdir(parents=True)
    (maps / "e").write_text('{"default": {"tool": "from-the-image"}}')
    assert pkg_map(["--element", "e", "tool"], context).stdout == ("from-the-image",)


def test_a_given_map_is_one_of_the_target(context: Context) -> None:
    (context.target_root / "map.json").write_text('{"default": {"a": "b"}}')
    assert pkg_map(["--pkg-map", "/map.json", "a"], context).stdout == ("b",)


def test_a_broken_map_is_status_1_with_the_place(context: Context) -> None:
    (context.target_root / "map.json").write_text("{")
    answer = pkg_map(["--pkg-map", "/map.json", "--missing-ok", "a"], context)
    assert answer.status == 1
    assert "map.json:1:2" in answer.stderr[0]


def test_help_is_printed_and_the_status_is_0(context: Context) -> None:
    answer = pkg_map(["--help"], context)
    assert answer.status == 0
    assert "--missing-ok" in "\n".join(answer.stdout)


# --- paths of the target


def test_links_are_followed_as_if_chrooted(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "usr/lib/up").symlink_to("../../../../etc")
    assert within(tmp_path, "/lib/x") == tmp_path / "usr/lib/x"
    assert within(tmp_path, "lib/up/passwd") == tmp_path / "etc/passwd"
    (tmp_path / "usr/lib/absolute").symlink_to("/usr/bin")
    assert within(tmp_path, "lib/absolute/x") == tmp_path / "usr/bin/x"
    assert within(tmp_path, "/") == tmp_path
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="round"):
        within(tmp_path, "/round/x")


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "link", "absolute"]), max_size=8))
def test_no_path_leads_out_of_the_tree(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "tree"
    if not root.exists():
        (root / "a/a").mkdir(parents=True)
        (root / "link").symlink_to("../..")
        (root / "a/link").symlink_to("../../a")
        (root / "a/absolute").symlink_to("/a/../../link")
        (root / "absolute").symlink_to("/a")
    assert within(root, "/".join(parts)).is_relative_to(root)
