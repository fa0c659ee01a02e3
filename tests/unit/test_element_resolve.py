from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.element_trees import make_element, make_system

from dibble.elements.assemble import element_set
from dibble.elements.find import BUILT_IN_ELEMENTS, find_elements, search_path
from dibble.elements.order import dependencies_first
from dibble.elements.resolve import resolve
from dibble.errors import ElementError

pytestmark = pytest.mark.unit


def names(
    words: list[str], *roots: Path, skip_base: bool = True, ramdisk: bool = False, arch: str = "amd64"
) -> list[str]:
    return [element.name for element in resolve(words, roots, skip_base=skip_base, ramdisk=ramdisk, arch=arch)]


def without(words: list[str], word: str) -> list[str]:
    return [other for other in words if other != word]


# --- the search path


def test_the_built_in_catalogue_comes_last_on_the_search_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    path = search_path({"ELEMENTS_PATH": f"{tmp_path}/a:{tmp_path}/b"})
    assert path == (tmp_path / "a", tmp_path / "b", BUILT_IN_ELEMENTS)


def test_without_elements_path_there_is_only_the_catalogue() -> None:
    assert search_path({}) == (BUILT_IN_ELEMENTS,)
    assert search_path({"ELEMENTS_PATH": ""}) == (BUILT_IN_ELEMENTS,)


def test_relative_entries_of_the_search_path_start_at_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert search_path({"ELEMENTS_PATH": "own"}, cwd=tmp_path)[0] == tmp_path / "own"


@pytest.mark.parametrize("form", ["{0}/absent", "{0}/file", "{0}/good:", ":{0}/good", "{0}/good::{0}/good"])
def test_an_entry_that_is_no_directory_is_named(tmp_path: Path, form: str) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "file").touch()
    given = form.format(tmp_path)
    with pytest.raises(ElementError, match="ELEMENTS_PATH") as caught:
        search_path({"ELEMENTS_PATH": given})
    assert given in caught.value.message
    assert caught.value.hint


def test_the_earlier_directory_wins_and_the_user_is_told(tmp_path: Path) -> None:
    make_element(tmp_path / "own", "a")
    make_element(tmp_path / "other", "a")
    make_element(tmp_path / "other", "unused")
    make_element(tmp_path / "third", "unused")
    catalogue = find_elements([tmp_path / "own", tmp_path / "other", tmp_path / "third"])
    assert catalogue.elements["a"].path == tmp_path / "own" / "a"
    (note,) = catalogue.notes([catalogue.elements["a"]])
    assert note.level == "warning"
    assert f"{tmp_path}/own/a hides {tmp_path}/other/a" in note.text


def test_a_directory_that_is_on_the_path_twice_hides_nothing(tmp_path: Path) -> None:
    make_element(tmp_path / "own", "a")
    (tmp_path / "link").symlink_to("own")
    catalogue = find_elements([tmp_path / "own", tmp_path / "link", tmp_path / "own"])
    assert not catalogue.hidden


def test_a_linked_element_has_the_name_of_the_link(tmp_path: Path) -> None:
    real = make_system(tmp_path / "elsewhere", "real-name")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "link-name").symlink_to(real.path)
    (element,) = resolve(["link-name"], [tmp_path / "path"], skip_base=True)
    assert element.name == "link-name"
    assert element.path == real.path


def test_files_and_hidden_directories_are_not_elements(tmp_path: Path) -> None:
    make_element(tmp_path, "a")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "README.rst").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert list(find_elements([tmp_path]).elements) == ["a"]


# --- dependencies


def test_dependencies_are_followed_and_stand_in_front(tmp_path: Path) -> None:
    make_system(tmp_path, deps=["b"])
    make_element(tmp_path, "b", deps=["c"])
    make_element(tmp_path, "c")
    make_element(tmp_path, "unused")
    assert names(["system"], tmp_path) == ["c", "b", "system"]


def test_requested_elements_keep_their_order_and_needed_ones_stand_by_name(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "z", deps=["p", "m", "n"])
    make_element(tmp_path, "a")
    for name in "mnp":
        make_element(tmp_path, name)
    assert names(["z", "system", "a"], tmp_path) == ["m", "n", "p", "z", "system", "a"]


def test_a_word_that_stands_twice_counts_once(tmp_path: Path) -> None:
    make_system(tmp_path)
    assert names(["system", "system"], tmp_path) == ["system"]


def test_elements_may_depend_on_themselves_and_on_one_another(tmp_path: Path) -> None:
    ring = [f"ring-{letter}" for letter in "abcdefghijk"]
    make_system(tmp_path, deps=["ring-a", "system"])
    for name, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        make_element(tmp_path, name, deps=[following, *(["under"] if name == "ring-c" else [])])
    make_element(tmp_path, "under")
    assert names(["system"], tmp_path) == ["under", *ring, "system"]
    assert names(["ring-d", "system"], tmp_path) == ["under", "ring-d", *without(ring, "ring-d"), "system"]


def test_a_chain_of_thousands_of_elements_resolves() -> None:
    chain = [str(number) for number in range(5000)]
    needs = {name: [str(int(name) + 1)] if int(name) < 4999 else [] for name in chain}
    assert [name for group in dependencies_first(["0"], needs) for name in group] == chain[::-1]


def test_element_deps_may_have_comments_and_blank_lines(tmp_path: Path) -> None:
    make_element(tmp_path, "a", {"element-deps": "# what a needs\n\n  b  # because\n#c\r\n"})
    make_element(tmp_path, "b")
    make_system(tmp_path)
    assert names(["a", "system"], tmp_path) == ["b", "a", "system"]


def test_two_names_on_a_line_are_refused_with_the_place(tmp_path: Path) -> None:
    make_element(tmp_path, "a", {"element-deps": "b\nc d\n"})
    make_element(tmp_path, "b")
    with pytest.raises(ElementError, match="c d") as caught:
        names(["a"], tmp_path)
    assert caught.value.where.file == tmp_path / "a" / "element-deps"
    assert caught.value.where.line == 2


def test_element_deps_that_is_not_text_is_refused(tmp_path: Path) -> None:
    element = make_element(tmp_path, "a")
    (element.path / "element-deps").write_bytes(b"\xff\xfe")
    with pytest.raises(ElementError, match="UTF-8"):
        names(["a"], tmp_path)


def test_an_unknown_element_is_an_error_with_the_nearest_names(tmp_path: Path) -> None:
    make_system(tmp_path, "debian-minimal")
    with pytest.raises(ElementError, match='"debian-minmal", asked for by the command line') as caught:
        names(["debian-minmal"], tmp_path)
    assert "debian-minimal" in caught.value.hint
    assert caught.value.exit_status == 2


def test_an_unknown_dependency_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    make_system(tmp_path, deps=["a"])
    make_element(tmp_path, "a", {"element-deps": "# needs\nmissing-thing\n"})
    with pytest.raises(ElementError, match='"missing-thing", asked for by a') as caught:
        names(["system"], tmp_path)
    assert caught.value.where.file == tmp_path / "a" / "element-deps"
    assert caught.value.where.line == 2
    assert caught.value.where.element == "a"


# --- virtual names


def test_a_provided_name_need_not_be_an_element(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "needs", deps=["virtual"])
    make_element(tmp_path, "gives", provides=["virtual"])
    assert names(["needs", "gives", "system"], tmp_path) == ["gives", "needs", "system"]
    assert names(["gives", "needs", "system"], tmp_path) == ["gives", "needs", "system"]


def test_a_provider_deep_in_the_dependencies_serves_an_earlier_element(tmp_path: Path) -> None:
    make_element(tmp_path, "first", deps=["virtual"])
    make_system(tmp_path, deps=["between"])
    make_element(tmp_path, "between", deps=["gives"])
    make_element(tmp_path, "gives", provides=["virtual"])
    assert names(["first", "system"], tmp_path) == ["gives", "first", "between", "system"]


def test_an_element_whose_name_is_provided_is_dropped_with_what_only_it_needs(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "user", deps=["bootloader"])
    make_element(tmp_path, "bootloader", deps=["grub"])
    make_element(tmp_path, "grub")
    make_element(tmp_path, "zipl", provides=["bootloader"])
    assert names(["user", "system"], tmp_path) == ["grub", "bootloader", "user", "system"]
    for words in (["user", "system", "zipl"], ["zipl", "user", "system"]):
        assert sorted(names(words, tmp_path)) == ["system", "user", "zipl"]
        assert names(words, tmp_path).index("zipl") < names(words, tmp_path).index("user")


def test_an_element_comes_back_when_its_provider_was_dropped_too(tmp_path: Path) -> None:
    make_system(tmp_path, deps=["one", "two"])
    make_element(tmp_path, "one")
    make_element(tmp_path, "two", deps=["gives-one"])
    make_element(tmp_path, "gives-one", provides=["one"])
    make_element(tmp_path, "gives-two", provides=["two"])
    assert names(["system", "gives-two"], tmp_path) == ["gives-two", "one", "system"]


def test_an_element_that_itself_leads_to_its_provider_is_dropped_but_the_provider_stays(tmp_path: Path) -> None:
    make_system(tmp_path, deps=["real"])
    make_element(tmp_path, "real", deps=["gives"])
    make_element(tmp_path, "gives", provides=["real"])
    assert names(["system"], tmp_path) == ["gives", "system"]


def test_an_element_may_provide_its_own_name(tmp_path: Path) -> None:
    make_system(tmp_path, deps=["a"])
    make_element(tmp_path, "a", provides=["a"])
    assert names(["a", "system"], tmp_path) == ["a", "system"]


def test_two_providers_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    make_system(tmp_path, "one", deps=["a"])
    make_element(tmp_path, "a", deps=["two"])
    make_system(tmp_path, "two")
    with pytest.raises(ElementError, match=r'"operating-system" is provided by one .* and by two') as caught:
        names(["one"], tmp_path)
    assert f"{tmp_path}/a/element-deps:1" in caught.value.message


def test_asking_for_a_name_that_another_element_provides_is_an_error(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "bootloader")
    make_element(tmp_path, "zipl", provides=["bootloader"])
    for words in (["bootloader", "zipl", "system"], ["zipl", "bootloader", "system"]):
        with pytest.raises(ElementError, match=r'"bootloader" .* zipl provides it'):
            names(words, tmp_path)


def test_a_virtual_name_without_provider_lists_the_elements_that_would_provide_it(tmp_path: Path) -> None:
    make_system(tmp_path, deps=["virtual"])
    make_element(tmp_path, "gives-b", provides=["virtual"])
    make_element(tmp_path, "gives-a", provides=["virtual"])
    with pytest.raises(ElementError, match='nothing in the set provides "virtual"') as caught:
        names(["system"], tmp_path)
    assert caught.value.hint == "add gives-a or gives-b"
    assert caught.value.where.line == 1


def test_a_without_operating_system_lists_the_elements_that_have_one(tmp_path: Path) -> None:
    make_system(tmp_path, "debian")
    make_system(tmp_path, "fedora")
    make_element(tmp_path, "a")
    with pytest.raises(ElementError, match="operating system") as caught:
        names(["a"], tmp_path)
    assert caught.value.hint == "add one of debian, fedora"


def test_no_element_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ElementError, match="no element"):
        names([], tmp_path)


# --- defaults


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    make_system(tmp_path)
    make_element(tmp_path, "base", deps=["under-base"])
    make_element(tmp_path, "under-base")
    make_element(tmp_path, "ramdisk")
    make_element(tmp_path, "other-ramdisk")
    make_element(tmp_path, "vm", deps=["block-device"])
    make_element(tmp_path, "wants-vm", deps=["vm"])
    for kind in ("mbr", "gpt", "efi"):
        make_element(tmp_path, f"block-device-{kind}", provides=["block-device"])
    return tmp_path


def test_base_stands_in_front_unless_it_is_skipped(catalogue: Path) -> None:
    assert names(["system"], catalogue, skip_base=False) == ["under-base", "base", "system"]
    assert names(["system"], catalogue) == ["system"]


def test_the_ramdisk_element_stands_in_front_of_base(catalogue: Path) -> None:
    assert names(["system"], catalogue, skip_base=False, ramdisk=True) == ["ramdisk", "under-base", "base", "system"]


def test_the_ramdisk_element_can_be_chosen(catalogue: Path) -> None:
    found = resolve(
        ["system"], [catalogue], ramdisk=True, skip_base=True, environment={"RAMDISK_ELEMENT": "other-ramdisk"}
    )
    assert [element.name for element in found] == ["other-ramdisk", "system"]


@pytest.mark.parametrize(
    ("arch", "layout"),
    [
        ("amd64", "mbr"),
        ("arm64", "efi"),
        ("aarch64", "efi"),
        ("riscv64", "efi"),
        ("armhf", "mbr"),
        ("ppc64el", "mbr"),
        ("", "mbr"),
    ],
)
def test_vm_gets_a_block_device_that_suits_the_architecture(catalogue: Path, arch: str, layout: str) -> None:
    assert names(["vm", "system"], catalogue, arch=arch) == [f"block-device-{layout}", "vm", "system"]


def test_a_dependency_on_vm_gets_the_block_device_too(catalogue: Path) -> None:
    assert names(["wants-vm", "system"], catalogue) == ["block-device-mbr", "vm", "wants-vm", "system"]


@pytest.mark.parametrize("words", [["vm", "block-device-gpt", "system"], ["block-device-gpt", "system", "wants-vm"]])
def test_a_chosen_block_device_takes_the_place_of_the_default(catalogue: Path, words: list[str]) -> None:
    found = names(words, catalogue)
    assert [name for name in found if name.startswith("block-device")] == ["block-device-gpt"]
    assert found.index("block-device-gpt") < found.index("vm")


def test_a_block_device_that_a_dependency_brings_takes_the_place_of_the_default(catalogue: Path) -> None:
    make_element(catalogue, "mine", deps=["special"])
    make_element(catalogue, "special", provides=["block-device"])
    assert names(["vm", "system", "mine"], catalogue) == ["special", "vm", "system", "mine"]


def test_without_vm_there_is_no_default_block_device(catalogue: Path) -> None:
    make_element(catalogue, "other", deps=["block-device"])
    with pytest.raises(ElementError, match="block-device"):
        names(["other", "system"], catalogue)


def test_an_element_that_provides_base_replaces_the_default(catalogue: Path) -> None:
    make_element(catalogue, "my-base", provides=["base"])
    assert names(["system", "my-base"], catalogue, skip_base=False) == ["system", "my-base"]


def test_the_element_set_holds_the_words_the_hooks_and_the_warnings(tmp_path: Path) -> None:
    make_system(tmp_path / "one")
    make_element(tmp_path / "one", "a", {"static/x": "a"}, scripts=["install.d/10-a"])
    make_element(tmp_path / "one", "b", {"static/etc/x": "b", "static/y": "b"})
    make_element(tmp_path / "one", "c", {"static/etc/x": "c"})
    make_element(tmp_path / "two", "a")
    found = element_set(["a", "b", "c", "system"], [tmp_path / "one", tmp_path / "two"], skip_base=True)
    assert found.requested == ("a", "b", "c", "system")
    assert "install.d/10-a" in found.hooks.files
    assert [note.level for note in found.notes] == ["warning", "warning"]
    assert "hides" in found.notes[0].text
    assert "static/etc/x" in found.notes[1].text


# --- properties

NAMES = [f"e{number}" for number in range(8)]
GRAPHS = st.fixed_dictionaries({name: st.sets(st.sampled_from(NAMES), max_size=3) for name in NAMES})


@settings(max_examples=60, deadline=None)
@given(graph=GRAPHS, words=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True), seed=st.integers())
def test_a_resolved_set_is_closed_ordered_and_independent_of_the_listing(
    graph: dict[str, set[str]], words: list[str], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        roots = [Path(scratch) / "one", Path(scratch) / "two"]
        shuffle = random.Random(seed).shuffle
        for root in roots:  # the same elements, made in another order, with their dependencies in another order
            made = list(graph)
            shuffle(made)
            for name in made:
                deps = sorted(graph[name])
                shuffle(deps)
                make_element(root, name, deps=deps)
            make_system(root)
        found, again = (names([*words, "system"], root) for root in roots)
    assert found == again
    assert len(found) == len(set(found))
    reach = {name: reachable(graph, name) for name in NAMES}
    assert set(found) == {"system"}.union(*(reach[word] | {word} for word in words))
    for after in found:
        for before in graph.get(after, set()):
            assert found.index(before) <= found.index(after) or after in reach[before]
    assert_groups_are_together(found, reach)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        for name in graph[todo.pop()] - found:
            found.add(name)
            todo.append(name)
    return found


def assert_groups_are_together(found: list[str], reach: dict[str, set[str]]) -> None:
    """What depends on one another stands without a gap."""
    for name in found[:-1]:
        ring = [found.index(other) for other in reach.get(name, set()) if name in reach[other]]
        if ring:
            assert max(ring) - min(ring) + 1 == len(ring)


@settings(max_examples=40, deadline=None)
@given(words=st.permutations(["needs-a", "needs-b", "gives-a", "gives-b", "real", "system"]))
def test_which_elements_are_in_the_set_does_not_depend_on_the_order_of_words(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make_system(root)
        make_element(root, "needs-a", deps=["a", "shadowed"])
        make_element(root, "needs-b", deps=["b", "needs-a"])
        make_element(root, "gives-a", provides=["a"], deps=["b"])
        make_element(root, "gives-b", provides=["b", "shadowed"])
        make_element(root, "shadowed", deps=["only-for-shadowed"])
        make_element(root, "only-for-shadowed")
        make_element(root, "real")
        found = names(words, root)
    assert sorted(found) == ["gives-a", "gives-b", "needs-a", "needs-b", "real", "system"]
    assert found.index("gives-b") < found.index("gives-a") < found.index("needs-a") < found.index("needs-b")


# --- elements that are there in name only


def test_an_element_that_cannot_be_used_is_refused_with_its_reason(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "old", {"element-unusable": "its distribution\nis dead.\n"}, deps=["never-was"])
    with pytest.raises(ElementError) as caught:
        names(["system", "old"], tmp_path)
    assert caught.value.message == "the element old cannot be used: its distribution is dead"
    assert caught.value.hint == "leave out old"


def test_who_needs_an_element_that_cannot_be_used_is_named_with_the_line(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "old", {"element-unusable": "it never worked\n"})
    make_element(tmp_path, "web", deps=["old"])
    with pytest.raises(ElementError) as caught:
        names(["system", "web"], tmp_path)
    assert (caught.value.where.element, caught.value.where.line) == ("web", 1)
    assert caught.value.hint == "leave out web, which needs it"


def test_an_element_of_the_same_name_earlier_on_the_path_is_used(tmp_path: Path) -> None:
    make_system(tmp_path / "own")
    make_element(tmp_path / "own", "old")
    make_element(tmp_path / "shipped", "old", {"element-unusable": "it never worked\n"})
    assert names(["system", "old"], tmp_path / "own", tmp_path / "shipped") == ["system", "old"]


def test_a_system_that_cannot_be_used_is_not_recommended(tmp_path: Path) -> None:
    make_system(tmp_path, "alive")
    make_element(tmp_path, "dead", {"element-unusable": "it is dead\n"}, provides=["operating-system"])
    make_element(tmp_path, "web")
    with pytest.raises(ElementError) as caught:
        names(["web"], tmp_path)
    assert "alive" in caught.value.hint
    assert "dead" not in caught.value.hint


def test_a_reason_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    make_system(tmp_path)
    make_element(tmp_path, "old", {"element-unusable": "\n"})
    with pytest.raises(ElementError, match="no reason"):
        names(["system", "old"], tmp_path)
