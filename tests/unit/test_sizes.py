from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.disk.sizes import Percent, human, parse_share, parse_size, round_down, round_up
from dibble.errors import DiskLayoutError, Where

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("154MiB", 154 << 20),
        ("198", 198),
        ("198B", 198),
        ("1 GiB", 1 << 30),
        ("1.5GiB", 3 << 29),
        (".5KiB", 512),
        ("1.KiB", 1024),
        ("MiB", 1 << 20),
        ("2TiB", 2 << 40),
        ("1TB", 10**12),
        ("1T", 10**12),
        ("1GB", 10**9),
        ("1G", 10**9),
        ("1800M", 1_800_000_000),
        ("1MB", 10**6),
        ("1KB", 1000),
        ("1K", 1000),
        ("0.1KB", 100),
        ("1.9999", 1),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", " 1MiB", "1MiB ", "1  MiB", "-1MiB", "1,5GiB", "1e3", "0x10", "50%", "1.2.3", "MiB1"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(DiskLayoutError) as caught:
        parse_size(text, Where(file="f", line=3))
    assert caught.value.where.line == 3
    assert caught.value.hint


@pytest.mark.parametrize("text", ["1mib", "1Mib", "1mb", "1Gb", "1PiB", "1k", "1b"])
def test_units_are_known_ones_and_case_matters(text: str) -> None:
    with pytest.raises(DiskLayoutError, match="unknown unit"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [("100%", Fraction(1)), ("50 %", Fraction(1, 2)), ("33.3%", Fraction(333, 1000)), (".5%", Fraction(1, 200))],
)
def test_a_percentage_is_exact(text: str, share: Fraction) -> None:
    assert parse_share(text) == Percent(share)


def test_a_share_may_be_a_size() -> None:
    assert parse_share("8MiB") == 8 << 20


@pytest.mark.parametrize("text", ["0%", "0.0%", "100.1%", "101%"])
def test_a_percentage_is_above_0_and_at_most_100(text: str) -> None:
    with pytest.raises(DiskLayoutError, match="not between 0% and 100%"):
        parse_share(text)


@pytest.mark.parametrize("text", ["%", "-5%", "5%%", "five%"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(DiskLayoutError):
        parse_share(text)


def test_a_percentage_of_free_space_is_rounded_down() -> None:
    assert Percent(Fraction(1, 3)).of(100) == 33
    assert str(Percent(Fraction(1, 3))) == "33.3333%"


@given(st.integers(0, 1 << 50), st.integers(1, 1 << 30))
def test_rounding_goes_to_the_next_multiple(value: int, multiple: int) -> None:
    down, up = round_down(value, multiple), round_up(value, multiple)
    assert down % multiple == up % multiple == 0
    assert down <= value <= up < down + 2 * multiple
    assert up - down == (multiple if value % multiple else 0)


@given(st.integers(0, 1 << 62))
def test_any_number_of_bytes_is_a_size(size: int) -> None:
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (8 << 20, "8 MiB"),
        (100 << 20, "100 MiB"),
        (1_567_000_000, "1.46 GiB"),
        (2 << 40, "2 TiB"),
    ],
)
def test_sizes_are_shown_in_the_largest_unit(size: int, text: str) -> None:
    assert human(size) == text
