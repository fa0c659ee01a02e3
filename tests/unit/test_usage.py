"""The report of where an image's space goes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dibble.tree.usage import report, usage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/large").write_bytes(bytes(11 << 20))
    os.link(tmp_path / "usr/bin/large", tmp_path / "usr/bin/twin")
    (tmp_path / "usr/small").write_bytes(bytes(3))
    (tmp_path / "link").symlink_to("usr/bin/large")
    return tmp_path


def test_directories_count_with_what_they_hold_and_links_once(root: Path) -> None:
    sizes = usage(root)
    assert sizes["/usr/bin"] == 11 << 20
    assert sizes["/usr"] == (11 << 20) + 3
    assert sizes["/"] == (11 << 20) + 3 + len("usr/bin/large")


def test_only_what_is_large_is_shown_and_only_on_demand(root: Path) -> None:
    assert list(report(root, {})) == []
    assert list(report(root, {"DIB_SHOW_IMAGE_USAGE": "0"})) == []
    lines = [line.split() for line in report(root, {"DIB_SHOW_IMAGE_USAGE": "1"})]
    assert [line[2] for line in lines[:3]] == ["/", "/usr", "/usr/bin"]
    assert lines[2][:2] == ["11", "MiB"]
    assert len(lines) == 4
    full = list(report(root, {"DIB_SHOW_IMAGE_USAGE": "1", "DIB_SHOW_IMAGE_USAGE_FULL": "1"}))
    assert any(line.endswith("3 bytes  /usr/small") for line in full)
