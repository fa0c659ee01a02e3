"""Malformed elements are told of before anything is built, each with file and line."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from tests.unit.element_trees import make_element

from dibble.elements.check import check
from dibble.elements.find import Catalogue
from dibble.elements.hooks import merge
from dibble.elements.lint import lint_element
from dibble.elements.readers.documents import read_text
from dibble.errors import ElementError
from dibble.plan.manifest import manifest_of
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.elements.model import Element

pytestmark = pytest.mark.unit


def warnings_of(*elements: Element) -> list[str]:
    notes = check(elements, merge(elements))
    assert all(note.level == "warning" for note in notes)
    return [note.text for note in notes]


def refused(element: Element) -> ElementError:
    with pytest.raises(ElementError) as caught:
        warnings_of(element)
    assert caught.value.where.element == element.name
    return caught.value


SCRIPT = "#!/bin/bash\necho\n"


@pytest.mark.parametrize(
    ("name", "text", "line", "told"),
    [
        ("package-installs.yaml", "vim:\n  phase: install.d\n phase: x\n", 3, "not YAML"),
        ("package-installs.yaml", "vim:\ngit:\n  phas: install.d\n", 3, 'unknown key "phas"'),
        ("package-installs.yaml", "vim:\n  phase: cleanup.d\n", 2, "cleanup.d"),
        ("package-installs.yaml", "vim:\n  when: A > B\n", 2, "malformed when"),
        ("package-installs.yaml", "vim:\n  arch: amd64\n  not-arch: i386\n", 3, "stand together"),
        ("package-installs.yaml", "vim:\n  arch: [amd64]\n", 2, "not a text"),
        ("package-installs.json", '{"vim": {"phase": 3}}', 1, '"3"'),
        ("pkg-map", '{"default": {\n "vim": ["vim"]}}', 2, "not a text"),
        ("pkg-map", '{"default": {\n "vim": 3}}', 2, "not a text"),
        ("pkg-map", '{"default": {\n "vim": }}', 2, "not JSON"),
        ("pkg-map", '{"distro": {\n "debian": "vim"}}', 2, "not a map"),
        ("svc-map", "ssh:\n  default: [a]\n", 2, "not a text"),
        ("svc-map", "a: b: c\n", 1, "not YAML"),
        ("source-repository-x", "# one\nx git /opt/x\n", 2, "NAME TYPE DESTINATION LOCATION"),
        ("source-repository-x", "x git opt/x http://x/ main\n", 1, "does not begin with /"),
        ("source-repository-x", "# one\nx git /opt/x http://x/\r\n", 2, "CR LF"),
        ("environment.d/10-x", "export A=1\nexport B=2\r\n", 2, "CR LF"),
        ("init.d/10-x", "echo\r\n", 1, "CR LF"),
        ("binary-deps.d/x", "bash\n\ncat\r\n", 3, "CR LF"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, name: str, text: str, line: int, told: str) -> None:
    element = make_element(tmp_path, "web")
    (element.path / name).parent.mkdir(exist_ok=True)
    (element.path / name).write_bytes(text.encode())
    error = refused(element)
    assert told in error.message
    assert str(error.where.file) == str(element.path / name)
    assert error.where.line == line


@pytest.mark.parametrize(
    ("name", "before"), [("package-installs.yaml", b"vim:\n# "), ("pkg-map", b"{\n"), ("source-repository-x", b"# x\n")]
)
def test_text_that_is_not_utf8_is_refused(tmp_path: Path, name: str, before: bytes) -> None:
    element = make_element(tmp_path, "web")
    (element.path / name).write_bytes(before + b"caf\xe9\n")
    error = refused(element)
    assert "UTF-8" in error.message
    assert error.where.line == 2


def test_two_elements_that_map_one_service_are_refused(tmp_path: Path) -> None:
    one = make_element(tmp_path, "one", {"svc-map": "ssh:\n  default: sshd\n"})
    two = make_element(tmp_path, "two", {"svc-map": "# x\nssh:\n  default: ssh\n"})
    with pytest.raises(ElementError, match="one and two") as caught:
        warnings_of(one, two)
    assert caught.value.where.line == 2


@pytest.mark.parametrize("text", ["#!/bin/bash\r\necho\r\n", "echo\r\n"])
@pytest.mark.parametrize("name", ["install.d/10-x", "install.d/web-source-install/10-x", "bin/x"])
def test_a_script_with_foreign_line_ends_is_refused(tmp_path: Path, name: str, text: str) -> None:
    element = make_element(tmp_path, "web", scripts=[name])
    (element.path / name).write_bytes(text.encode())
    error = refused(element)
    assert "CR LF" in error.message
    assert "sed -i" in error.hint
    assert error.where.line == 1


def test_a_mark_in_front_of_the_interpreter_line_is_refused(tmp_path: Path) -> None:
    element = make_element(tmp_path, "web", scripts=["install.d/10-x"])
    (element.path / "install.d/10-x").write_bytes(b"\xef\xbb\xbf" + SCRIPT.encode())
    error = refused(element)
    assert "byte order mark" in error.message
    assert error.where.line == 1
    run(["bash", "-c", error.hint], env=dict(os.environ))
    assert (element.path / "install.d/10-x").read_text() == SCRIPT


def test_a_link_out_of_the_element_is_refused(tmp_path: Path) -> None:
    make_element(tmp_path, "other", scripts=["install.d/20-y"])
    element = make_element(tmp_path, "web", scripts=["install.d/10-x"])
    link = element.path / "install.d/20-y"
    link.symlink_to("../../other/install.d/20-y")
    error = refused(element)
    assert "../../other/install.d/20-y" in error.message
    assert (error.where.file, error.where.line) == (link, 1)


def test_a_link_within_the_merged_tree_is_in_order(tmp_path: Path) -> None:
    other = make_element(tmp_path, "other", scripts=["install.d/x-source-install/20-y"])
    element = make_element(tmp_path, "web", scripts=["bin/x"])
    (element.path / "install.d").mkdir()
    (element.path / "install.d/20-y").symlink_to("x-source-install/20-y")
    (element.path / "install.d/30-x").symlink_to("../bin/x")
    assert warnings_of(other, element) == []


@pytest.mark.parametrize("goals", [("10-x",), ("11-x", "10-x")])
def test_links_in_a_circle_are_warned_of(tmp_path: Path, goals: tuple[str, ...]) -> None:
    element = make_element(tmp_path, "web", {"install.d/data": ""})
    for number, goal in enumerate(goals, start=10):
        (element.path / f"install.d/{number}-x").symlink_to(goal)
    notes = warnings_of(element)
    assert len(notes) == len(goals)
    assert "10-x:1, element web: the link leads to" in notes[0]
    assert "in a circle" in notes[0]
    manifest_of(merge([element]), {})


def test_a_name_that_stands_twice_in_a_map_of_packages_is_warned_of(tmp_path: Path) -> None:
    text = '{"default": {"vim": "a",\n "vim": "b"}}'
    (note,) = warnings_of(make_element(tmp_path, "web", {"pkg-map": text}))
    assert note.endswith('pkg-map:2, element web: "vim" stands twice in a map, and the last one counts')


def test_a_package_that_stands_twice_is_warned_of(tmp_path: Path) -> None:
    text = "vim:\ngit:\nvim:\n  phase: pre-install.d\n"
    (note,) = warnings_of(make_element(tmp_path, "web", {"package-installs.yaml": text}))
    assert 'package-installs.yaml:3, element web: "vim" stands there twice' in note


def test_merged_keys_may_be_written_again(tmp_path: Path) -> None:
    text = "vim: &a\n  phase: pre-install.d\ngit:\n  <<: *a\n  phase: install.d\n"
    assert warnings_of(make_element(tmp_path, "web", {"package-installs.yaml": text})) == []


def test_a_source_of_an_unknown_type_is_warned_of(tmp_path: Path) -> None:
    (note,) = warnings_of(make_element(tmp_path, "web", {"source-repository-x": "\nx svn /opt/x http://x/\n"}))
    assert 'source-repository-x:2, element web: x is of the type "svn"' in note


def test_what_does_not_run_is_warned_of(tmp_path: Path) -> None:
    element = make_element(tmp_path, "web", scripts=["install.d/10-x", "install.d/11-x.sh", "install.d/helper.sh"])
    (element.path / "install.d/12-x").write_text(SCRIPT)
    (element.path / "install.d/data").write_text(SCRIPT)
    (element.path / "install.d/13-list").write_text("a list\n")
    (element.path / "install.d/14-x").symlink_to("nowhere")
    (element.path / "install.d/15-x").write_text("echo\n")
    (element.path / "install.d/15-x").chmod(0o755)
    (element.path / "install.d/16-x").write_bytes(b"\x7fELF")
    (element.path / "install.d/16-x").chmod(0o755)
    dotted, mode, link, bare = warnings_of(element)
    assert "11-x.sh does not run: a script's name" in dotted
    assert "install.d/11-x.sh:1, element web: " in dotted
    assert "12-x does not run, because it is not executable" in mode
    assert "install.d/12-x:1, element web: " in mode
    assert "14-x:1, element web: the link leads to nowhere" in link
    assert "15-x has no interpreter line" in bare
    assert "install.d/15-x:1, element " in bare


def test_what_is_no_file_is_left_out_with_a_warning(tmp_path: Path) -> None:
    element = make_element(tmp_path, "web", scripts=["install.d/10-x"], files={"static/etc/x": "x\n"})
    for name in ("pipe", "install.d/20-pipe", "static/etc/pipe"):
        os.mkfifo(element.path / name)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(element.path / "install.d/30-socket"))
    (element.path / "nothing").symlink_to("nowhere")
    tree = merge([element])
    assert list(tree.files) == ["install.d/10-x", "static/etc/x"]
    assert [note.level for note in tree.notes] == ["warning"] * 5
    begin = f"{element.path}/"
    assert [note.text.removeprefix(begin) for note in tree.notes] == [
        "install.d/20-pipe:1, element web: 20-pipe is a named pipe, which no build takes",
        "install.d/30-socket:1, element web: 30-socket is a socket, which no build takes",
        "nothing:1, element web: nothing is a link to nothing, which no build takes",
        "pipe:1, element web: pipe is a named pipe, which no build takes",
        "static/etc/pipe:1, element web: pipe is a named pipe, which no build takes",
    ]
    (element.path / "README.rst").write_text("web\n")
    found = [(str(f.file).removeprefix(begin), f.line) for f in lint_element(element, Catalogue({}, {}))]
    told = ["install.d/20-pipe", "install.d/30-socket", "nothing", "pipe", "static/etc/pipe"]
    assert sorted({place for place in found if "10-x" not in place[0]}) == [(name, 1) for name in told]


@pytest.mark.parametrize("name", ["install.d", "environment.d", "bin", "static"])
def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path, name: str) -> None:
    element = make_element(tmp_path, "web", {name: "echo\n", "README.rst": "web\n"})
    error = refused(element)
    assert "expects a directory" in error.message
    assert (str(error.where.file), error.where.line) == (str(element.path / name), 1)
    (found,) = lint_element(element, Catalogue({}, {}))
    assert (found.file, found.line, found.message in error.message) == (element.path / name, 1, True)


@pytest.mark.parametrize("name", ["element-deps", "pkg-map", "package-installs.yaml", "svc-map", "source-repository-x"])
def test_a_pipe_in_the_place_of_a_file_that_is_read_is_told_and_never_waited_for(tmp_path: Path, name: str) -> None:
    element = make_element(tmp_path, "web")
    os.mkfifo(element.path / name)
    with pytest.raises(ElementError, match="named pipe") as caught:
        read_text(element.path / name, "web")
    assert (caught.value.where.file, caught.value.where.line) == (element.path / name, 1)


def test_an_unknown_section_of_a_map_is_warned_of(tmp_path: Path) -> None:
    element = make_element(tmp_path, "web", {"pkg-map": '{"default": {"vim": "vim"},\n "distros": {}}'})
    (note,) = warnings_of(element)
    assert "pkg-map:2" in note
    assert "did you mean distro?" in note


def test_lines_that_the_shell_makes_are_left_to_it(tmp_path: Path) -> None:
    make = {"source-repository-x": "x $TYPE\n# x\n\ny tar /opt/y http://x/y.tgz . sha256=1234\n"}
    assert warnings_of(make_element(tmp_path, "web", make)) == []
