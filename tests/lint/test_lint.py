"""The checks of form: ruff, mypy, shellcheck, and dibble's own for elements."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lint

ROOT = Path(__file__).resolve().parents[2]
SHELLS = ("#!/bin/sh", "#!/bin/bash", "# shellcheck shell=")


def run(*argv: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def shell_scripts() -> list[str]:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                first = file.readline(80).decode(errors="replace")
            if first.startswith(SHELLS):
                found.append(name)
    return found


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    run("ruff", "format", "--check", ".")


def test_types_hold() -> None:
    run("mypy")


def test_shellcheck_finds_nothing() -> None:
    scripts = shell_scripts()
    assert "dibble" in scripts
    # SC1091: files that are sourced lie elsewhere at run time
    run("shellcheck", "--severity=warning", "--exclude=SC1091", *scripts)
