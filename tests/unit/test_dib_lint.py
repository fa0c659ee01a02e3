from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.unit import needed

from dibble.cli import dib_lint
from dibble.elements.lint import EXCLUDABLE, Finding, lint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

GOOD_SCRIPT = """\
#!/bin/bash

if [ "${DIB_DEBUG_TRACE:-0}" -gt 0 ]; then
    set -x
fi
set -eu
set -o pipefail

echo done
"""


class Elements:
    """A directory with one good element, `e`."""

    def __init__(self, root: Path) -> None:
        self.root = root / "elements"
        self.library = root / "lib"
        self.library.mkdir()
        self.write("README.rst", "=\ne\n=\n")
        self.write("install.d/10-good", GOOD_SCRIPT, executable=True)

    def write(self, path: str, text: str, *, executable: bool = False) -> Path:
        file = self.root / "e" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if executable else 0o644)
        return file

    def script(self, line: str, path: str = "install.d/20-x") -> None:
        """A good script with one more line."""
        self.write(path, GOOD_SCRIPT + line + "\n", executable=True)

    def findings(self, *ignored: str) -> list[Finding]:
        return lint(self.root, self.library, ignored_rules=ignored)

    def only(self) -> tuple[str, str, int | None]:
        """Rule, message and line of the only finding."""
        (finding,) = self.findings()
        return finding.rule, finding.message, finding.line


@pytest.fixture
def elements(tmp_path: Path) -> Elements:
    return Elements(tmp_path)


def test_a_good_element_has_no_findings(elements: Elements) -> None:
    elements.write("element-deps", "# b first\na\n\nb\n")
    elements.write("environment.d/10-x.bash", "export A=${A:-1}\n")
    elements.write("package-installs.yaml", "vim:\n")
    elements.write("pkg-map", "{}")
    elements.write("source-repository-x", "x git /x https://x\n")
    elements.write("data.bin", "\tno newline")
    elements.write("bin/pkg-map", GOOD_SCRIPT, executable=True)
    assert elements.findings() == []


def test_every_element_has_a_readme(elements: Elements) -> None:
    (elements.root / "e/README.rst").unlink()
    assert elements.only() == ("", "has no README.rst", None)


def test_source_repositories_end_with_a_newline(elements: Elements) -> None:
    elements.write("source-repository-x", "x git /x https://x")
    assert elements.only()[0] == ""
    assert len(elements.findings("newline")) == 1


def test_scripts_with_an_interpreter_line_are_executable(elements: Elements) -> None:
    elements.write("install.d/20-x", GOOD_SCRIPT)
    assert elements.only()[0] == "executable"


@pytest.mark.parametrize("line", ["  echo", "     echo", " echo"])
def test_shell_scripts_are_indented_by_fours(elements: Elements, line: str) -> None:
    elements.script(line)
    assert elements.only()[::2] == ("indent", 10)


def test_here_documents_may_be_indented_in_any_way(elements: Elements) -> None:
    elements.script("cat <<'EOF'\n  two\n   three\nEOF\n    true")
    elements.script("cat <<-EOF\n  two\n    EOF\ncat <<< ' x'\n", "install.d/30-x")
    assert elements.findings() == []
    elements.script("cat << EOF\n  two\nEOF\n  true")
    assert elements.only()[::2] == ("indent", 13)


@pytest.mark.parametrize("text", ["b\na\n", "b\n# comment\n\na\n"])
def test_element_deps_is_sorted(elements: Elements, text: str) -> None:
    elements.write("element-deps", text)
    assert elements.only()[1] == "element-deps is not sorted"


@pytest.mark.parametrize("shebang", ["#!/usr/bin/env bash", "#!/usr/bin/bash", "#!/bin/bash -e", "#! /bin/bash"])
def test_the_interpreter_line_of_bash_is_exactly_one(elements: Elements, shebang: str) -> None:
    elements.write("install.d/20-x", GOOD_SCRIPT.replace("#!/bin/bash", shebang), executable=True)
    assert "not #!/bin/bash" in elements.only()[1]


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("set -eu\n", "set -u\n", "sete"),
        ("set -eu\n", "set -e\n", "setu"),
        ("set -o pipefail\n", "", "setpipefail"),
        ("DIB_DEBUG_TRACE", "MY_TRACE", "dibdebugtrace"),
    ],
)
def test_scripts_switch_on_what_they_should(elements: Elements, before: str, after: str, rule: str) -> None:
    elements.write("install.d/20-x", GOOD_SCRIPT.replace(before, after), executable=True)
    assert elements.only()[0] == rule


@pytest.mark.parametrize("form", ["set -euo pipefail\n", "set -o pipefail -eu\n", "set -e\nset -u\nset -o pipefail\n"])
def test_the_switches_may_stand_together(elements: Elements, form: str) -> None:
    elements.write("i.d/1", GOOD_SCRIPT.replace("set -eu\nset -o pipefail\n", form), executable=True)
    assert elements.findings() == []


def test_environment_files_do_not_trace_and_are_not_executable(elements: Elements) -> None:
    elements.write("environment.d/10-x", "set -x\n")
    assert elements.only()[2] == 1
    elements.write("environment.d/10-x", "A=1\n", executable=True)
    assert "must not be executable" in elements.only()[1]


@pytest.mark.parametrize("line", ["export A=$(b)", 'export A="$(b)"'])
@pytest.mark.parametrize("path", ["install.d/20-x", "environment.d/20-x"])
def test_export_does_not_hide_a_status(elements: Elements, line: str, path: str) -> None:
    if path.startswith("install"):
        elements.script(line)
    else:
        elements.write(path, line + "\n")
    assert "export hides the status" in elements.only()[1]


@pytest.mark.parametrize("line", ["A=$(b)\nexport A", "export A=$((1 + 1))", "export A=b", "# export A=$(b)"])
def test_other_exports_are_fine(elements: Elements, line: str) -> None:
    elements.script(line)
    assert elements.findings() == []


@pytest.mark.parametrize("phase", ["root.d", "extra-data.d", "block-device.d", "finalise.d", "cleanup.d"])
def test_sudo_outside_the_target_names_the_target(elements: Elements, phase: str) -> None:
    elements.script("sudo rm -rf /tmp/x", f"{phase}/20-x")
    assert elements.only()[::2] == ("safe_sudo", 10)


@pytest.mark.parametrize(
    "line",
    [
        "sudo rm $TARGET_ROOT/x",
        "sudo rm ${TMP_MOUNT_PATH}/x",
        "sudo dd of=$IMAGE_BLOCK_DEVICE",
        "sudo rm $TMP_IMAGE_PATH",
        "sudo install-packages x",
        "# sudo rm x",
        "sudo true  # dib-lint: safe_sudo",
        "sudo cp \\\n    x \\\n    $TARGET_ROOT",
    ],
)
def test_sudo_for_the_target_is_fine(elements: Elements, line: str) -> None:
    elements.script(line, "root.d/20-x")
    assert elements.findings() == []


def test_sudo_inside_the_target_is_fine(elements: Elements) -> None:
    elements.script("sudo rm /x", "install.d/20-x")
    assert elements.findings() == []


@pytest.mark.parametrize("line", ["which ls", "a=$(which ls)", "if ! which ls; then true; fi"])
def test_which_is_not_used(elements: Elements, line: str) -> None:
    elements.script(line)
    assert elements.only()[0] == "which"


@pytest.mark.parametrize("line", ["# which one", "which ls  # dib-lint: which", "somewhich ls"])
def test_other_uses_of_the_word_which_are_fine(elements: Elements, line: str) -> None:
    elements.script(line)
    assert elements.findings() == []


def test_tabs_do_not_indent(elements: Elements) -> None:
    elements.script("\techo")
    assert elements.only()[::2] == ("tabindent", 10)
    elements.script("echo\t# a tab further on")
    elements.write("README.rst", "e\n=\n\n \ttext\n")
    assert elements.only()[::2] == ("tabindent", 4)
    elements.write("README.rst", "e\n=\n")
    (elements.library / "functions").write_text("a() {\n\ttrue\n}\n")
    assert elements.only()[::2] == ("tabindent", 2)


def test_scripts_documentation_and_libraries_end_with_a_newline(elements: Elements) -> None:
    elements.write("install.d/20-x", GOOD_SCRIPT.rstrip(), executable=True)
    assert elements.only()[0] == "newline"
    (elements.root / "e/install.d/20-x").unlink()
    (elements.library / "functions").write_text("true")
    assert elements.only()[0] == "newline"


def test_documentation_is_not_markdown(elements: Elements) -> None:
    elements.write("README.md", "# e\n")
    assert elements.only()[0] == "mddocs"


@pytest.mark.parametrize("text", ["a: [\n", "a: b: c\n"])
def test_yaml_files_parse(elements: Elements, text: str) -> None:
    elements.write("deep/er/x.yaml", text)
    assert "not YAML" in elements.only()[1]


def test_pkg_maps_parse(elements: Elements) -> None:
    elements.write("pkg-map", "{,}")
    assert "not JSON" in elements.only()[1]


@pytest.mark.parametrize("rule", sorted(EXCLUDABLE))
def test_every_excludable_rule_can_be_switched_off_in_the_file_and_for_all(elements: Elements, rule: str) -> None:
    bad = f"#!/bin/bash\n# dib-lint: disable=other {rule} another\n  \techo\n which ls\nsudo rm x\n"
    path = {"mddocs": "x.md"}.get(rule, "root.d/20-x")
    elements.write(path, bad + ("x" if rule == "newline" else ""), executable=rule != "executable")
    others = {finding.rule for finding in elements.findings()}
    assert rule not in others
    elements.write(
        path,
        bad.replace(f"other {rule}", "other") + ("x" if rule == "newline" else ""),
        executable=rule != "executable",
    )
    assert {finding.rule for finding in elements.findings()} == others | {rule}
    assert {finding.rule for finding in elements.findings(rule)} == others


def test_binary_files_are_not_a_problem(elements: Elements) -> None:
    file = elements.write("static/program", "", executable=True)
    file.write_bytes(b"\x7fELF\0\xff\xfe")
    assert elements.findings() == []


# --- the command


@pytest.fixture
def here(elements: Elements, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, which holds `elements` and `lib`."""
    for variable in ("ELEMENTS_DIR", "LIB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(elements.root.parent)
    return elements.root.parent


def test_the_command_says_pass(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dib_lint.main([]) == 0
    assert capsys.readouterr().out == "PASS\n"


def test_the_command_says_fail_behind_what_it_found(
    here: Path, elements: Elements, capsys: pytest.CaptureFixture[str]
) -> None:
    elements.script("  echo")
    assert dib_lint.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ERROR: elements/e/install.d/20-x:10: is not indented by a multiple of 4 spaces [indent]",
        "*** FAIL",
    ]


def test_the_usual_directories_of_a_diskimage_builder_checkout_are_found(here: Path) -> None:
    (here / "diskimage_builder").mkdir()
    (here / "elements").rename(here / "diskimage_builder/elements")
    (here / "lib").rename(here / "diskimage_builder/lib")
    (here / "diskimage_builder/lib/x").write_text("\tx\n")
    assert dib_lint.main([]) == 1
    (here / "diskimage_builder/lib/x").unlink()
    assert dib_lint.main([]) == 0


def test_directories_can_be_given(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elements").rename(here / "mine")
    assert dib_lint.main([]) == 1
    monkeypatch.setenv("ELEMENTS_DIR", "mine")
    assert dib_lint.main([]) == 0
    monkeypatch.setenv("LIB_DIR", "no-such-directory")
    assert dib_lint.main([]) == 1


def test_rules_are_switched_off_in_tox_ini(here: Path, elements: Elements, capsys: pytest.CaptureFixture[str]) -> None:
    elements.script("  echo\nwhich ls")
    (here / "tox.ini").write_text("[dib-lint]\nignore = which indent\n")
    assert dib_lint.main([]) == 0
    (here / "tox.ini").write_text("no section\n")
    assert dib_lint.main([]) == 1
    assert "tox.ini" in capsys.readouterr().err


@needed.programs("git")
def test_files_that_git_ignores_are_skipped(here: Path, elements: Elements) -> None:
    elements.script("  echo", "install.d/20-ignored")
    elements.write("scratch/x.md", "x\n")
    assert dib_lint.main([]) == 1
    subprocess.run(["git", "init", "-q"], check=True)
    (here / ".gitignore").write_text("20-ignored\nscratch/\n")
    assert dib_lint.main([]) == 0


def test_python_scripts_without_suffix_are_checked(
    here: Path, elements: Elements, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bin").mkdir()
    monkeypatch.setenv("PATH", str(here / "bin"))
    elements.write("bin/tool", "#!/usr/bin/python3\nprint 'two'\n", executable=True)
    assert dib_lint.main([]) == 1
    assert "is not Python 3" in capsys.readouterr().out
    elements.write("bin/tool", "#!/usr/bin/python3\nprint('three')\n", executable=True)
    assert dib_lint.main([]) == 0
    flake8 = here / "bin/flake8"
    flake8.write_text('#!/bin/sh\necho "$1:1:1: E999 wrong"\nexit 1\n')
    flake8.chmod(0o755)
    capsys.readouterr()
    assert dib_lint.main([]) == 1
    assert "E999 wrong" in capsys.readouterr().out
