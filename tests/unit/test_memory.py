"""Temporary files are kept in memory only when there is enough of it and nobody forbids it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.sandbox.memory import GIB, Memory, available_bytes, memory_for

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("available", "no_tmpfs", "min_gib", "profile", "allowed", "said"),
    [
        (8 * GIB, False, 2, "", True, ""),
        (2 * GIB, False, 2, "", True, ""),
        (2 * GIB - 1, False, 2, "", False, "--min-tmpfs asks for 2"),
        (8 * GIB, False, 16, "", False, "8.0 GiB of memory are available"),
        (8 * GIB, True, 2, "", False, "--no-tmpfs"),
        (8 * GIB, False, 2, "default/linux/amd64/23.0/hardened", False, "hardened"),
        (0, False, 0, "", True, ""),
    ],
)
def test_the_decision(available: int, no_tmpfs: bool, min_gib: int, profile: str, allowed: bool, said: str) -> None:
    found = memory_for(available, no_tmpfs=no_tmpfs, min_gib=min_gib, gentoo_profile=profile)
    assert found.allowed is allowed
    assert said in found.reason
    assert bool(found.reason) is not allowed


@given(st.integers(0, 1 << 45), st.integers(0, 64))
def test_never_more_than_half_of_what_is_available(available: int, min_gib: int) -> None:
    found = memory_for(available, no_tmpfs=False, min_gib=min_gib)
    assert found.limit <= available // 2
    assert found.allowed or found == Memory(False, 0, found.reason)


def test_this_machine_has_memory() -> None:
    assert available_bytes() > 1 << 20
