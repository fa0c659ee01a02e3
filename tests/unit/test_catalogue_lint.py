"""The scripts of the shipped elements under the linters."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from dibble.elements.lint import lint
from dibble.run.prepare import CATALOGUE
from dibble.sandbox.process import run

pytestmark = pytest.mark.lint

ELEMENTS = CATALOGUE / "elements"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def scripts() -> list[Path]:
    return sorted(p for p in ELEMENTS.rglob("*") if p.is_file() and p.read_bytes().startswith(b"#!/bin/bash"))


def test_the_shipped_elements_pass_lint() -> None:
    assert [str(finding) for finding in lint(ELEMENTS, CATALOGUE / "lib")] == []


def test_shellcheck_has_nothing_to_say_of_the_scripts() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{PATH}")
    if program is None:
        pytest.skip("shellcheck is not installed")
    files = scripts() + sorted(ELEMENTS.glob("*/environment.d/*"))
    done = run([program, "--severity=warning", *map(str, files)], env={"PATH": PATH}, check=False)
    assert done.output == ""
