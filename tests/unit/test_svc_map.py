from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.element_trees import make_element

from dibble.elements.engine_verbs import Context, VerbResult, merge_svc_map, svc_map
from dibble.elements.readers.svc_map import merged_services
from dibble.errors import ElementError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

TEXT = """\
web:
  debian: web-debian
  redhat: web-redhat
  default: web-default
plain:
  suse: plain-suse
empty:
"""


@pytest.mark.parametrize(
    ("distro", "web", "plain"),
    [
        ("debian", "web-debian", "plain"),
        ("ubuntu", "web-debian", "plain"),  # the family's name is debian
        ("fedora", "web-redhat", "plain"),
        ("rocky", "web-redhat", "plain"),
        ("almalinux", "web-redhat", "plain"),
        ("openeuler", "web-redhat", "plain"),
        ("opensuse", "web-default", "plain-suse"),
        ("gentoo", "web-default", "plain"),
        ("", "web-default", "plain"),
    ],
)
def test_a_service_is_called_as_the_distribution_the_family_or_the_default_says(
    tmp_path: Path, distro: str, web: str, plain: str
) -> None:
    element = make_element(tmp_path, "e", {"svc-map": TEXT})
    assert merged_services([element], distro) == {"empty": "empty", "plain": plain, "web": web}


def test_the_distribution_goes_before_its_family(tmp_path: Path) -> None:
    element = make_element(tmp_path, "e", {"svc-map": "a:\n  redhat: family\n  rocky: own\n"})
    assert merged_services([element], "rocky") == {"a": "own"}


def test_services_of_all_elements_are_merged(tmp_path: Path) -> None:
    elements = [make_element(tmp_path, name, {"svc-map": f"{name}:\n  default: x{name}\n"}) for name in "ba"]
    elements.append(make_element(tmp_path, "without"))
    assert list(merged_services(elements, "debian").items()) == [("a", "xa"), ("b", "xb")]


def test_a_service_in_two_elements_is_an_error_that_names_both(tmp_path: Path) -> None:
    one = make_element(tmp_path, "one", {"svc-map": "x:\na:\n  default: x\n"})
    two = make_element(tmp_path, "two", {"svc-map": "# two\na:\n  default: y\n"})
    with pytest.raises(ElementError, match='"a" is mapped by the elements one and two') as caught:
        merged_services([one, two], "debian")
    assert caught.value.where.file == two.path / "svc-map"
    assert caught.value.where.line == 2


@pytest.mark.parametrize("text", ["a: b\n", "- a\n", "a:\n  debian: [x]\n", "a: [\n"])
def test_a_map_of_the_wrong_shape_is_an_error_with_the_place(tmp_path: Path, text: str) -> None:
    element = make_element(tmp_path, "e", {"svc-map": text})
    with pytest.raises(ElementError) as caught:
        merged_services([element], "debian")
    assert caught.value.where.line is not None


# --- the verbs


@pytest.fixture
def context(tmp_path: Path) -> Context:
    element = make_element(tmp_path / "elements", "e", {"svc-map": TEXT})
    (tmp_path / "target").mkdir()
    return Context((element,), {"DISTRO_NAME": "debian", "TMP_MOUNT_PATH": "/build/mnt"}, tmp_path / "target")


def test_names_are_mapped_one_a_line_and_unknown_ones_stand_for_themselves(context: Context) -> None:
    assert svc_map(["web", "unknown", "plain"], context) == VerbResult(stdout=("web-debian", "unknown", "plain"))


@pytest.mark.parametrize("file", ["lib/systemd/system/web.service", "etc/init/web.conf"])
def test_an_installed_service_stands_for_itself(context: Context, file: str) -> None:
    (context.target_root / file).parent.mkdir(parents=True)
    (context.target_root / file).touch()
    assert svc_map(["web"], context).stdout == ("web",)


def test_an_installed_unit_is_found_through_the_merged_usr_of_the_target(context: Context) -> None:
    (context.target_root / "usr/lib/systemd/system").mkdir(parents=True)
    (context.target_root / "lib").symlink_to("/usr/lib")
    (context.target_root / "usr/lib/systemd/system/web.service").touch()
    assert svc_map(["web"], context).stdout == ("web",)


def test_the_merged_map_in_the_target_is_used(context: Context) -> None:
    assert merge_svc_map(["/build/mnt/usr/share/svc-map/services"], context).status == 0
    (context.elements[0].path / "svc-map").write_text("web:\n  default: changed\n")
    assert svc_map(["web"], context).stdout == ("web-debian",)


def test_the_merged_map_is_plain_yaml(context: Context) -> None:
    assert merge_svc_map(["-"], context).stdout == ('"empty": "empty"', '"plain": "plain"', '"web": "web-debian"')
    without = Context((), {}, context.target_root)
    assert merge_svc_map([], without).stdout == ("{}",)
    assert merge_svc_map(["/usr/share/svc-map/services"], without).status == 0
    assert svc_map(["web"], without).stdout == ("web",)


def test_the_status_is_always_0(context: Context) -> None:
    (context.elements[0].path / "svc-map").write_text("a: [")
    answer = svc_map(["web"], context)
    assert (answer.stdout, answer.status) == (("web",), 0)
    assert "not YAML" in answer.stderr[0]
    assert svc_map([], context).stdout == ()
    assert svc_map(["--help"], context).status == 0
