from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.element_trees import make_element

from dibble.elements.engine_verbs import Context, PackageRequest, package_installs, squash_package_installs
from dibble.elements.readers.package_installs import Squashed, by_element, install_type, read_squashed, squash
from dibble.errors import ElementError, PackageError, UsageError

pytestmark = pytest.mark.unit


def squashed(root: Path, *texts: str, arch: str = "amd64", **environment: str) -> Squashed:
    """What elements e0, e1 … with these package-installs.yaml want."""
    elements = [make_element(root, f"e{n}", {"package-installs.yaml": text}) for n, text in enumerate(texts)]
    return squash(elements, environment, arch)


def installed(root: Path, text: str, arch: str = "amd64", **environment: str) -> list[str]:
    wanted = squashed(root, text, arch=arch, **environment)
    return [package for package, _ in wanted.get("install.d", {}).get("install", [])]


# --- one file


def test_a_package_alone_is_installed_in_install_d(tmp_path: Path) -> None:
    assert squashed(tmp_path, "vim:\nless:\n") == {"install.d": {"install": [["vim", "e0"], ["less", "e0"]]}}


def test_the_phase_can_be_chosen(tmp_path: Path) -> None:
    text = "a:\n  phase: post-install.d\nb:\n  phase: pre-install.d\nc:\n  phase: install.d\n"
    assert squashed(tmp_path, text) == {
        "pre-install.d": {"install": [["b", "e0"]]},
        "install.d": {"install": [["c", "e0"]]},
        "post-install.d": {"install": [["a", "e0"]]},
    }


def test_build_only_packages_are_installed_and_uninstalled(tmp_path: Path) -> None:
    wanted = squashed(tmp_path, "gcc:\n  build-only: True\n")
    assert wanted == {"install.d": {"install": [["gcc", "e0"]], "uninstall": [["gcc", "e0"]]}}


@pytest.mark.parametrize("value", ["true", "True", "yes", "on", "1", "", "'true'"])
def test_uninstall_removes(tmp_path: Path, value: str) -> None:
    assert squashed(tmp_path, f"a:\n  uninstall: {value}\n") == {"install.d": {"uninstall": [["a", "e0"]]}}


@pytest.mark.parametrize("value", ["false", "False", "no", "off", "0"])
@pytest.mark.parametrize("key", ["uninstall", "build-only"])
def test_a_key_that_says_no_only_installs(tmp_path: Path, key: str, value: str) -> None:
    assert squashed(tmp_path, f"a:\n  {key}: {value}\n") == {"install.d": {"install": [["a", "e0"]]}}


def test_json_and_yaml_are_both_read(tmp_path: Path) -> None:
    files = {"package-installs.yaml": "a:\n", "package-installs.json": '{"b": null, "c": {"phase": "install.d"}}'}
    element = make_element(tmp_path, "e", files)
    assert squash([element], {}, "") == {"install.d": {"install": [["a", "e"], ["b", "e"], ["c", "e"]]}}


def test_json_with_tabs_is_json(tmp_path: Path) -> None:
    assert installed(tmp_path, '{\n\t"a":\tnull,\n\t"b": {"build-only": true}\n}') == ["a", "b"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "---\n"])
def test_an_empty_file_wants_nothing(tmp_path: Path, text: str) -> None:
    assert squashed(tmp_path, text) == {}


def test_package_names_may_look_like_numbers(tmp_path: Path) -> None:
    assert installed(tmp_path, "7zip:\n0ad:\n9:\n") == ["7zip", "0ad", "9"]


def test_yaml_anchors_and_merge_keys_are_followed(tmp_path: Path) -> None:
    text = "a: &late\n  phase: post-install.d\nb: *late\nc:\n  <<: *late\n  uninstall: true\n"
    text += "d:\n  phase: pre-install.d\n  <<: *late\n"
    assert squashed(tmp_path, text) == {
        "pre-install.d": {"install": [["d", "e0"]]},
        "post-install.d": {"install": [["a", "e0"], ["b", "e0"]], "uninstall": [["c", "e0"]]},
    }


# --- conditions


@pytest.mark.parametrize(
    ("condition", "arch", "applies"),
    [
        ("arch: amd64", "amd64", True),
        ("arch: amd64", "arm64", False),
        ("arch: ppc64, amd64", "amd64", True),
        ("arch: 'ppc64 ,amd64 '", "amd64", True),
        ("arch: ppc64le", "ppc64", False),
        ("not-arch: arm64, amd64", "amd64", False),
        ("not-arch: arm64, armhf", "amd64", True),
    ],
)
def test_architectures_are_listed_with_or_without_spaces(
    tmp_path: Path, condition: str, arch: str, applies: bool
) -> None:
    assert bool(installed(tmp_path, f"a:\n  {condition}\n", arch=arch)) == applies


def test_arch_and_not_arch_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ElementError, match="arch and not-arch") as caught:
        installed(tmp_path, "a:\n  arch: amd64\n  not-arch: arm64\n")
    assert caught.value.where.line == 3


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, "source"),
        ({"DIB_DEFAULT_INSTALLTYPE": "package"}, "package"),
        ({"DIB_INSTALLTYPE_e0": "repo", "DIB_DEFAULT_INSTALLTYPE": "package"}, "repo"),
    ],
)
def test_the_install_type_decides(tmp_path: Path, environment: dict[str, str], kind: str) -> None:
    text = "s:\n  installtype: source\np:\n  installtype: package\nr:\n  installtype: repo\n"
    assert installed(tmp_path, text, **environment) == [kind[0]]


def test_the_install_type_of_an_element_has_underscores_for_dashes() -> None:
    assert install_type("simple-init", {"DIB_INSTALLTYPE_simple_init": "package"}) == "package"


def test_the_python_version_decides(tmp_path: Path) -> None:
    text = "two:\n  dib_python_version: 2\nthree:\n  dib_python_version: '3'\n"
    assert installed(tmp_path, text, DIB_PYTHON_VERSION="3") == ["three"]
    assert installed(tmp_path / "again", text) == []


@pytest.mark.parametrize(
    ("when", "applies"),
    [
        ("V = a b", True),
        ("V=a b", True),
        ("V != a b", False),
        ("V != other", True),
        ("V = other", False),
        ("V=  a b", True),
        ("E = ", True),
        ("E !=", False),
        ("[V = a b, E != x]", True),
        ("[V = a b, E = x]", False),
        ("[]", True),
    ],
)
def test_when_compares_variables_and_a_list_asks_for_all(tmp_path: Path, when: str, applies: bool) -> None:
    assert bool(installed(tmp_path, f"a:\n  when: {when}\n", V="a b", E="")) == applies


def test_when_about_a_variable_that_is_not_set_is_an_error_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(ElementError, match="UNSET, which is not set") as caught:
        installed(tmp_path, "a:\n\nb:\n  when: UNSET = 1\n")
    assert caught.value.where.line == 4
    assert caught.value.where.file == tmp_path / "e0" / "package-installs.yaml"


@pytest.mark.parametrize("when", ["just words", "= x", "A B = c", "A > 3"])
def test_a_malformed_when_is_an_error(tmp_path: Path, when: str) -> None:
    with pytest.raises(ElementError, match="malformed when"):
        installed(tmp_path, f"a:\n  when: '{when}'\n", A="1")


def test_an_earlier_condition_spares_the_later_ones(tmp_path: Path) -> None:
    assert installed(tmp_path, "a:\n  arch: arm64\n  when: UNSET = 1\n", arch="amd64") == []


def test_the_maps_of_a_list_are_taken_each_for_itself(tmp_path: Path) -> None:
    text = "a:\n  - phase: pre-install.d\n    arch: amd64\n  - phase: post-install.d\n  - arch: arm64\n"
    assert set(squashed(tmp_path, text)) == {"pre-install.d", "post-install.d"}


# --- mistakes


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a:\nb:\n  phse: install.d\n", 'unknown key "phse"', 3),
        ("a:\n  phase: instal.d\n", 'phase "instal.d"', 2),
        ("a:\n  phase: root.d\n", 'phase "root.d"', 2),
        ("a:\n  phase: [x]\n", "phase is not a text", 2),
        ("a:\n  uninstall: perhaps\n", 'uninstall is "perhaps"', 2),
        ("a: vim\n", '"a" is not a map', 1),
        ("a:\n  - 3\n", '"a" is not a map', 2),
        ("- a\n- b\n", "not a map", 1),
        ("a: [\n", "not YAML", 2),
        ("a: b: c\n", "not YAML", 1),
        ('{"a": {"pase": "x"}}', 'unknown key "pase"', 1),
        ('{\n\t"a": {\n\t\t"pase": "x"}}', 'unknown key "pase"', 3),
        ("a: &x\n  arch: *x\n", "alias", 1),
    ],
)
def test_a_mistake_is_an_error_with_file_and_line(tmp_path: Path, text: str, message: str, line: int) -> None:
    with pytest.raises(ElementError) as caught:
        squashed(tmp_path, text)
    assert message in caught.value.message
    assert caught.value.where.line == line
    assert caught.value.where.file == tmp_path / "e0" / "package-installs.yaml"
    assert caught.value.where.element == "e0"


def test_a_misspelt_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ElementError) as caught:
        squashed(tmp_path, "a:\n  uninstal: true\n")
    assert caught.value.hint == "did you mean uninstall?"


# --- several elements


def test_a_plain_install_wins_over_an_uninstall_in_either_order(tmp_path: Path) -> None:
    install, uninstall = "a:\n", "a:\n  uninstall: true\n"
    assert squashed(tmp_path / "1", install, uninstall) == {"install.d": {"install": [["a", "e0"]]}}
    assert squashed(tmp_path / "2", uninstall, install) == {"install.d": {"install": [["a", "e1"]]}}


def test_a_plain_install_keeps_what_another_element_needs_for_the_build_only(tmp_path: Path) -> None:
    plain, build = "a:\n", "a:\n  build-only: true\n"
    both = {"install.d": {"install": [["a", "e0"], ["a", "e1"]]}}
    assert squashed(tmp_path / "1", plain, build) == both
    assert squashed(tmp_path / "2", build, plain) == both


def test_phases_do_not_interfere(tmp_path: Path) -> None:
    wanted = squashed(tmp_path / "1", "a:\n", "a:\n  uninstall: true\n  phase: post-install.d\n")
    assert wanted == {"install.d": {"install": [["a", "e0"]]}, "post-install.d": {"uninstall": [["a", "e1"]]}}
    wanted = squashed(tmp_path / "2", "a:\n  phase: post-install.d\n", "a:\n  uninstall: true\n")
    assert wanted == {"install.d": {"uninstall": [["a", "e1"]]}, "post-install.d": {"install": [["a", "e0"]]}}


def test_an_install_that_does_not_apply_cancels_no_uninstall(tmp_path: Path) -> None:
    wanted = squashed(tmp_path, "a:\n  uninstall: true\n", "a:\n  arch: arm64\n", arch="amd64")
    assert wanted == {"install.d": {"uninstall": [["a", "e0"]]}}


def test_only_the_elements_given_are_read_not_those_they_hide(tmp_path: Path) -> None:
    element = make_element(tmp_path / "own", "a", {"package-installs.yaml": "own:\n"})
    make_element(tmp_path / "other", "a", {"package-installs.yaml": "other:\n"})
    assert squash([element], {}, "") == {"install.d": {"install": [["own", "a"]]}}


PACKAGES = st.dictionaries(
    st.sampled_from("abc"),
    st.sampled_from(["", "{uninstall: true}", "{build-only: true}", "{arch: arm64}"]),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(files=st.lists(PACKAGES, max_size=3))
def test_what_is_installed_plainly_is_never_removed_and_order_matters_not(files: list[dict[str, str]]) -> None:
    texts = ["".join(f"{name}: {value}\n" for name, value in file.items()) for file in files]
    with tempfile.TemporaryDirectory() as scratch:
        elements = [
            make_element(Path(scratch), f"e{n}", {"package-installs.yaml": text}) for n, text in enumerate(texts)
        ]
        wanted = squash(elements, {}, "amd64").get("install.d", {})
        reverse = squash(elements[::-1], {}, "amd64").get("install.d", {})
    plain = {name for file in files for name, value in file.items() if not value}
    removed = {name for name, _ in wanted.get("uninstall", [])}
    assert plain.isdisjoint(removed)
    assert plain <= {name for name, _ in wanted.get("install", [])}
    for section in ("install", "uninstall"):
        assert sorted(wanted.get(section, [])) == sorted(reverse.get(section, []))


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"# \n\t<,?%@1", max_size=40))
def test_any_text_is_either_read_or_refused_with_an_element_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(ElementError):
        squashed(Path(scratch), text)


# --- the verbs


def context(root: Path, *texts: str, **environment: str) -> Context:
    elements = tuple(
        make_element(root / "elements", f"e{n}", {"package-installs.yaml": text}) for n, text in enumerate(texts)
    )
    (root / "target/tmp").mkdir(parents=True)
    return Context(elements, {"DISTRO_NAME": "debian", "ARCH": "amd64", **environment}, root / "target")


def test_the_request_names_mapped_packages_once_in_the_order_of_elements(tmp_path: Path) -> None:
    asked = context(tmp_path, "vim:\nless:\n", "editor:\nless:\nnothing:\n")
    (asked.elements[1].path / "pkg-map").write_text('{"default": {"editor": "nano vim", "nothing": ""}}')
    assert package_installs(["--phase", "install.d"], asked) == PackageRequest(install=("vim", "less", "nano"))


def test_the_request_to_uninstall_is_one_to_remove(tmp_path: Path) -> None:
    asked = context(tmp_path, "gcc:\n  build-only: true\nvim:\n")
    assert package_installs(["--phase", "install.d", "--uninstall"], asked) == PackageRequest(remove=("gcc",))


def test_noop_only_shows_the_command(tmp_path: Path) -> None:
    asked = context(tmp_path, "gcc:\n  build-only: true\n")
    shown = package_installs(["--phase", "install.d", "-n"], asked)
    assert shown == PackageRequest(messages=("install-packages gcc",))
    shown = package_installs(["--phase", "install.d", "--uninstall", "--noop"], asked)
    assert shown == PackageRequest(messages=("install-packages -e gcc",))


def test_nothing_to_do_is_a_message(tmp_path: Path) -> None:
    asked = context(tmp_path, "gcc:\n")
    assert package_installs(["--phase", "post-install.d"], asked).messages == ("Nothing to install in post-install.d",)
    assert not package_installs(["--phase", "no-such.d"], asked).install


@pytest.mark.parametrize("form", ["/tmp/list.json", "/mount/tmp/list.json"])
def test_a_squashed_file_of_the_target_is_used_instead_of_the_elements(tmp_path: Path, form: str) -> None:
    asked = context(tmp_path, "vim:\n", TMP_MOUNT_PATH="/mount")
    assert squash_package_installs(["/mount/tmp/list.json"], asked).status == 0
    (asked.elements[0].path / "package-installs.yaml").write_text("other:\n")
    assert package_installs(["--phase", "install.d", form], asked).install == ("vim",)


def test_a_link_in_the_target_does_not_lead_out_of_it(tmp_path: Path) -> None:
    asked = context(tmp_path, "vim:\n")
    (tmp_path / "list.json").write_text('{"install.d": {"install": [["outside", "e0"]]}}')
    (asked.target_root / "inside.json").write_text('{"install.d": {"install": [["inside", "e0"]]}}')
    (asked.target_root / "link.json").symlink_to("../inside.json")
    assert package_installs(["--phase", "install.d", "/link.json"], asked).install == ("inside",)


def test_squashing_to_standard_output_prints_json_of_the_named_elements(tmp_path: Path) -> None:
    asked = context(tmp_path, "vim:\n", "less:\n")
    answer = squash_package_installs(["--elements", "e1", "--path", "/ignored", "-"], asked)
    assert json.loads("\n".join(answer.stdout)) == {"install.d": {"install": [["less", "e1"]]}}


def test_squashing_over_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="/tmp cannot be written"):
        squash_package_installs(["/tmp"], context(tmp_path, "vim:\n"))


def test_a_broken_map_is_a_package_error_and_its_status_is_1(tmp_path: Path) -> None:
    asked = context(tmp_path, "vim:\n")
    (asked.elements[0].path / "pkg-map").write_text("{")
    with pytest.raises(PackageError, match="not JSON") as caught:
        package_installs(["--phase", "install.d"], asked)
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("argv", [[], ["--phase"], ["--phase", "install.d", "--nope"], ["--phase", "a", "b", "c"]])
def test_wrong_arguments_are_a_usage_error(tmp_path: Path, argv: list[str]) -> None:
    with pytest.raises(UsageError, match="package-installs"):
        package_installs(argv, context(tmp_path))


@pytest.mark.parametrize("text", ["[]", '{"install.d": []}', '{"install.d": {"install": ["vim"]}}', "{", "[" * 100_000])
def test_a_file_that_is_not_a_squashed_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ElementError):
        read_squashed(tmp_path / "list.json")


def test_requests_group_by_element_in_order() -> None:
    grouped = by_element([["b", "two"], ["a", "one"], ["c", "two"], ["b", "two"]])
    assert grouped == {"two": ["b", "c"], "one": ["a"]}
    assert list(grouped) == ["two", "one"]
