"""`dibble elements search`, `show`, `new`, `lint` and the choice of tests, on elements made for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from tests.unit.element_trees import make_element, make_system

from dibble.cli.elements import elements as elements_group
from dibble.elements import find
from dibble.elements.find import BUILT_IN_ELEMENTS, find_elements
from dibble.elements.lint import lint_element
from dibble.elements.own_tests import tests_of as own_tests_of
from dibble.elements.readme import documented_variables, rendered
from dibble.elements.resolve import resolve
from dibble.elements.settings import settings_of
from dibble.errors import ElementError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.elements.model import Element

pytestmark = pytest.mark.unit

README = """\
======
mailer
======

Sends mail from the console. It needs a relay.

Variables
---------

DIB_MAIL_RELAY, DIB_MAIL_HOST
  The relay. A name or an address.
DIB_MAIL_PORT
  :Required: no
  :Description: The port of the relay.
A term that is no variable
  and what it means
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on ELEMENTS_PATH; dibble itself brings the element `base` only."""
    monkeypatch.chdir(tmp_path)
    make_element(tmp_path / "built-in", "base", {"README.rst": "====\nbase\n====\n\nUpgrades.\n"})
    monkeypatch.setattr(find, "BUILT_IN_ELEMENTS", tmp_path / "built-in")
    monkeypatch.setattr("dibble.cli.elements_lint.BUILT_IN_ELEMENTS", tmp_path / "built-in")
    monkeypatch.setenv("ELEMENTS_PATH", str(tmp_path / "own"))
    make_system(tmp_path / "own")
    return tmp_path / "own"


def invoke(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(elements_group, arguments, catch_exceptions=False, standalone_mode=False)
    assert (result.return_value or 0) == status, result.output
    return result


# --- search


def test_all_words_have_to_be_somewhere_and_names_go_first(own: Path) -> None:
    make_element(own, "console-log", {"README.rst": "===\nx\n===\n\nLogs to a port.\n"})
    make_element(own, "mailer", {"README.rst": README})
    make_element(own, "other", {"README.rst": "===\no\n===\n\nNothing.\n"}, provides=["console"])
    assert [line.split()[0] for line in invoke("search", "console").output.splitlines()] == [
        "console-log",
        "mailer",
        "other",
    ]
    assert invoke("search", "Console", "relay").output.splitlines() == ["mailer  Sends mail from the console"]
    assert [found["name"] for found in json.loads(invoke("search", "--json", "mailer").output)] == ["mailer"]


def test_a_search_without_a_result_has_a_status(own: Path) -> None:
    assert invoke("search", "nowhere", status=1).output == ""


# --- variables


def test_a_readme_explains_its_variables() -> None:
    assert documented_variables(README) == {
        "DIB_MAIL_RELAY": "The relay",
        "DIB_MAIL_HOST": "The relay",
        "DIB_MAIL_PORT": "The port of the relay",
    }


def test_a_table_explains_variables_too() -> None:
    table = "=========  =====  ========\nVariable   is     Meaning\n=========  =====  ========\n"
    assert documented_variables(table + "``DIB_A``  ``1``  The one.\n=========  =====  ========\n") == {
        "DIB_A": "The one"
    }


def test_a_default_that_depends_on_the_machine_is_told_in_full(tmp_path: Path) -> None:
    text = (
        "case $ARCH in\na) export DIB_A=${DIB_A:-1} ;;\nb) export DIB_A=${DIB_A:-2} ;;\nc) DIB_A=${DIB_A:-1} ;;\nesac\n"
    )
    element = make_element(tmp_path, "x", {"environment.d/10-x": text, "install.d/10-x": "${DIB_A:-9}\n"})
    assert [(s.default, s.line) for s in settings_of(element).taken] == [("1 | 2", 2)]


def test_a_readme_that_is_no_good_markup_explains_nothing_and_stops_nothing() -> None:
    assert documented_variables("*broken `markup\n===\n.. include:: /etc/passwd\n") == {}


def test_defaults_come_from_environment_d_first_with_their_place(tmp_path: Path) -> None:
    element = make_element(
        tmp_path,
        "mailer",
        {
            "README.rst": README,
            "environment.d/10-m": "# ${DIB_NOT:-this}\nexport DIB_MAIL_PORT=${DIB_MAIL_PORT:-25}\nexport MAILER=exim\n",
            "install.d/10-m": '#!/bin/bash\nport=${DIB_MAIL_PORT:-99}\nif [ -n "${DIB_GUARD:-}" ]; then true; fi\n'
            "x=${DIB_DEPTH:-${DIB_LOWER:-3}}\necho ${DIB_DEBUG_TRACE:-0}\n",
        },
    )
    found = settings_of(element)
    assert [(setting.name, setting.default, setting.line) for setting in found.taken] == [
        ("DIB_MAIL_RELAY", None, None),
        ("DIB_MAIL_HOST", None, None),
        ("DIB_MAIL_PORT", "25", 2),
        ("DIB_DEPTH", "${DIB_LOWER:-3}", 4),
        ("DIB_LOWER", "3", 4),
    ]
    assert [(setting.name, setting.default) for setting in found.given] == [("MAILER", "exim")]


def test_binary_files_have_no_variables(tmp_path: Path) -> None:
    element = make_element(tmp_path, "tool")
    (element.path / "bin").mkdir()
    (element.path / "bin/tool").write_bytes(b"\x7fELF\0${DIB_X:-1}")
    assert settings_of(element).taken == ()


def test_show_tells_variables_and_who_needs_an_element(own: Path) -> None:
    make_element(
        own, "mailer", {"README.rst": README, "environment.d/1": "export DIB_MAIL_PORT=${DIB_MAIL_PORT:-25}\n"}
    )
    make_element(own, "web", deps=["mailer"])
    shown = invoke("show", "mailer").output
    assert "needed by web" in shown
    assert "DIB_MAIL_PORT=25  The port of the relay" in shown
    data = json.loads(invoke("show", "--json", "mailer").output)
    assert data["needed_by"] == ["web"]
    assert {v["name"]: v["default"] for v in data["variables"]}["DIB_MAIL_PORT"] == "25"


def test_a_readme_is_a_page_on_a_terminal() -> None:
    from rich.console import Console

    console = Console(width=60, force_terminal=True, record=True)
    console.print(rendered(README + "\nSome ``code`` and::\n\n    literal\n"))
    text = console.export_text()
    assert "mailer" in text
    assert "======" not in text
    assert "``" not in text
    assert "literal" in text


@pytest.mark.parametrize("name", [path.name for path in sorted(BUILT_IN_ELEMENTS.iterdir()) if path.is_dir()])
def test_the_documentation_of_a_shipped_element_is_good_markup(name: str) -> None:
    from docutils.core import publish_doctree

    text = (BUILT_IN_ELEMENTS / name / "README.rst").read_text()
    complaints: list[str] = []

    class Listener:
        def write(self, complaint: str) -> None:
            complaints.append(complaint)

    publish_doctree(text, settings_overrides={"report_level": 2, "warning_stream": Listener(), "_disable_config": True})
    assert complaints == []


# --- what cannot be used


def test_what_cannot_be_used_is_listed_with_the_reason(own: Path) -> None:
    make_element(own, "old", {"element-unusable": "it never worked\n"})
    assert "old     (cannot be used: it never worked)" in invoke("list").output
    assert "unusable  it never worked" in invoke("show", "old").output
    assert json.loads(invoke("show", "--json", "old").output)["unusable"] == "it never worked"


# --- new


def test_a_new_element_resolves_and_passes_lint(own: Path) -> None:
    invoke("new", "web-server")
    catalogue = find_elements([own, BUILT_IN_ELEMENTS])
    element = catalogue.elements["web-server"]
    assert lint_element(element, catalogue) == []
    names = [found.name for found in resolve(["debian-minimal", "web-server"], [own, BUILT_IN_ELEMENTS])]
    assert "web-server" in names
    found = settings_of(element).taken
    assert [(s.name, s.default) for s in found] == [("DIB_WEB_SERVER_GREETING", "hello")]
    assert [test.id for test in own_tests_of(element, catalogue, "debian-minimal")] == ["web-server/build-succeeds"]


def test_a_new_element_goes_where_it_is_told_else_to_the_path_else_to_elements(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = json.loads(invoke("new", "--json", "one", "-d", "deep/er").output)
    assert data["path"] == "deep/er/one"
    assert "deep/er/one/README.rst" in data["files"]
    assert json.loads(invoke("new", "--json", "one").output)["path"] == f"{own}/one"
    monkeypatch.delenv("ELEMENTS_PATH")
    assert json.loads(invoke("new", "--json", "one").output)["path"] == "elements/one"
    assert (tmp_path / "elements/one/install.d/50-one").is_file()


def test_a_new_element_says_what_it_hides(own: Path) -> None:
    assert json.loads(invoke("new", "--json", "base").output)["hides"].endswith("built-in/base")


@pytest.mark.parametrize("name", ["Web", "web_server", "-x", "a--b", "a/b", "..", "9x", ""])
def test_a_name_that_is_none_is_refused(own: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        invoke("new", "--", name)


def test_what_is_there_is_not_written_over(own: Path) -> None:
    make_element(own, "web", {"README.rst": "mine"})
    with pytest.raises(ElementError, match="is there already"):
        invoke("new", "web")
    assert (own / "web/README.rst").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(own: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ElementError, match=r"file.* cannot be written: Not a directory") as caught:
        invoke("new", "web", "-d", f"{tmp_path}/file/deeper")
    assert "--directory" in caught.value.hint


# --- lint


def test_lint_names_file_line_and_rule(own: Path, tmp_path: Path) -> None:
    make_element(own, "web", {"README.rst": "x\n"}, deps=["base", "bsae"])
    make_element(own, "good", {"README.rst": "x\n"})
    script = own / "web/install.d/10-x"
    script.parent.mkdir()
    script.write_text('#!/bin/bash\nset -eu -o pipefail\n# DIB_DEBUG_TRACE\n  echo "x"\n')
    script.chmod(0o755)
    result = invoke("lint", "web", status=1)
    assert result.stdout.splitlines() == [
        "own/web/install.d/10-x:4: is not indented by a multiple of 4 spaces [indent]",
        'own/web/element-deps:2: no element is or provides "bsae"',
    ]
    rows = json.loads(invoke("lint", "--json", "web", "good", status=1).stdout)
    assert [(row["element"], row["line"], row["rule"]) for row in rows] == [("web", 4, "indent"), ("web", 2, None)]
    assert invoke("lint", "good").stdout == ""


def test_lint_without_names_takes_ones_own(own: Path) -> None:
    result = invoke("lint", "--json", status=1)
    assert [row["element"] for row in json.loads(result.stdout)] == ["system"], "it has no README; base is not ours"


def test_lint_follows_tox_ini(own: Path, tmp_path: Path) -> None:
    make_element(own, "web", {"README.rst": "x\n", "x.md": "x\n"})
    assert "[mddocs]" in invoke("lint", "web", status=1).stdout
    (tmp_path / "tox.ini").write_text("[dib-lint]\nignore = mddocs\n")
    assert invoke("lint", "web").stdout == ""


def test_lint_tells_a_list_that_cannot_be_read(own: Path) -> None:
    make_element(own, "web", {"README.rst": "x\n", "element-deps": "a b\n"})
    assert "element-deps:1:" in invoke("lint", "web", status=1).stdout


def test_lint_without_any_element_says_what_to_do(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELEMENTS_PATH")
    with pytest.raises(UsageError, match="no element on ELEMENTS_PATH"):
        invoke("lint")


# --- which tests there are


@pytest.fixture
def tested(own: Path) -> Element:
    element = make_element(own, "web", {"README.rst": "x\n"})
    make_element(own / "web/test-elements", "formats", {"test-output-formats": "tar,qcow2\n"}, deps=["system"])
    make_element(own / "web/test-elements", "ramdisk", {"element-type": "ramdisk\n"})
    return element


def test_a_test_brings_its_system_formats_and_type_or_gets_them(own: Path, tested: Element) -> None:
    make_system(own, "another")
    formats, ramdisk = own_tests_of(tested, find_elements([own]), "another")
    assert (formats.words, formats.formats, formats.kind) == (("web", "formats"), "tar,qcow2", "disk")
    assert (ramdisk.words, ramdisk.formats, ramdisk.kind) == (("another", "web", "ramdisk"), "tar", "ramdisk")


def test_an_unknown_type_of_test_is_an_error(own: Path, tested: Element) -> None:
    (own / "web/test-elements/ramdisk/element-type").write_text("floppy\n")
    with pytest.raises(ElementError, match="floppy"):
        own_tests_of(tested, find_elements([own]), "system")


def test_tests_are_listed_and_chosen_by_name(own: Path, tested: Element) -> None:
    listed = invoke("test", "--list", "--system", "system").output.splitlines()
    assert [line.split()[0] for line in listed] == ["web/formats", "web/ramdisk"]
    chosen = json.loads(invoke("test", "--list", "--json", "--system", "system", "web/ramdisk").output)
    assert [test["test"] for test in chosen] == ["web/ramdisk"]
    with pytest.raises(UsageError, match='unknown test of web "fromats"') as caught:
        invoke("test", "--list", "--system", "system", "web/fromats")
    assert "formats" in caught.value.hint


def test_an_element_without_tests_is_told(own: Path) -> None:
    with pytest.raises(UsageError, match="no test of system"):
        invoke("test", "--system", "system", "system")
