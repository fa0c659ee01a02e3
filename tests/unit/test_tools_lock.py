"""The lock files of the tools tree: read, written, and whether those that ship make sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.errors import HostError, UsageError
from dibble.sandbox.tools_lock import CORE, GROUPS, LockedPackage, ToolsLock, lock_path, parse_lock, read_lock

pytestmark = pytest.mark.unit

LINE = f"bash 5.2-1 {'ab' * 32} 1500 pool/main/b/bash/bash_5.2-1_amd64.deb"
TEXT = f"# about\n# suite: trixie\n# arch: amd64\n# snapshot: 20250906T101444Z\n\n[core]\n{LINE}\n"

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789+-.", min_size=1, max_size=12).filter(lambda word: word.strip("."))
locked = st.builds(
    LockedPackage,
    name=words,
    version=st.text("0123456789.:~+-abc", min_size=1, max_size=12),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size=st.integers(0, 2**40),
    path=st.lists(words, min_size=1, max_size=4).map(lambda parts: "/".join(["pool", *parts])),
)
groups = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12),
    st.lists(locked, max_size=4).map(tuple),
    max_size=4,
)


@given(groups=groups)
def test_what_is_written_is_read_back(groups: dict[str, tuple[LockedPackage, ...]]) -> None:
    lock = ToolsLock("trixie", "amd64", "20250906T101444Z", groups)
    assert parse_lock(str(lock), source="x") == lock
    assert str(parse_lock(str(lock), source="x")) == str(lock)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (TEXT.replace(" 1500 ", " many "), 7),
        (TEXT.replace("ab" * 32, "ab" * 31), 7),
        (TEXT.replace("pool/main", "pool/../main"), 7),
        (TEXT.replace("pool/main", "/pool/main"), 7),
        (TEXT.replace("[core]\n", ""), 6),
        (TEXT + "[core]\n", 8),
        (TEXT + "<<<<<<< HEAD\n", 8),
        (TEXT.replace("# snapshot: 20250906T101444Z\n", ""), 1),
    ],
)
def test_a_damaged_lock_is_refused_with_its_line(wrong: str, line: int) -> None:
    with pytest.raises(UsageError) as caught:
        parse_lock(wrong, source="tools.lock")
    assert (caught.value.where.file, caught.value.where.line) == ("tools.lock", line)
    assert "dibble tools update" in caught.value.hint


def test_an_unknown_group_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match='no group of tools "rpm"') as caught:
        parse_lock(TEXT, source="x").group("rpm")
    assert "core" in caught.value.hint


def test_the_digest_changes_with_every_part_of_a_line() -> None:
    digests = {
        parse_lock(text, source="x").digest(CORE)
        for text in (
            TEXT,
            TEXT.replace("bash 5.2-1", "bash 5.2-2"),
            TEXT.replace("ab" * 32, "ac" * 32),
            TEXT + LINE.replace("bash", "dash") + "\n",
        )
    }
    assert len(digests) == 4
    moved = TEXT.replace("# about", "# other words").replace("2025", "2026")
    assert parse_lock(moved, source="x").digest(CORE) == parse_lock(TEXT, source="x").digest(CORE)


def test_an_architecture_without_tools_is_told() -> None:
    with pytest.raises(HostError, match="no tools tree for vax machines") as caught:
        read_lock("vax")
    assert "--tools=host" in caught.value.hint


@pytest.mark.parametrize("arch", GROUPS)
def test_the_lock_that_ships_has_every_group_and_its_packages(arch: str) -> None:
    lock = read_lock(arch)
    assert lock.arch == arch
    assert set(lock.groups) == set(GROUPS[arch])
    core = {package.name for package in lock.group(CORE)}
    for group, wanted in GROUPS[arch].items():
        names = [package.name for package in lock.group(group)]
        assert names == sorted(set(names)), "sorted, each once"
        assert set(wanted) <= set(names)
        assert group == CORE or not core & set(names), "a group holds what core has not"
    assert str(lock) == lock_path(arch).read_text("utf-8")


@pytest.mark.parametrize("arch", GROUPS)
def test_core_stays_small(arch: str) -> None:
    assert sum(package.size for package in read_lock(arch).group(CORE)) < 100e6
