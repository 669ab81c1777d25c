"""How sizes, ages and tables are written."""

from __future__ import annotations

import pytest

from flexkv.cli.text import age_text, bar, percent, printable, size_text, table, time_text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10_240, "10.0 KiB"),
        (1023 * 1024, "1.00 MiB"),
        (999 * 1024, "999 KiB"),
        (1 << 30, "1.00 GiB"),
        (1 << 62, "4.00 EiB"),
    ],
)
def test_a_size_has_three_digits_and_a_unit(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (-1, "in the future"),
        (0.5, "now"),
        (1, "1 second ago"),
        (119, "1 minute ago"),
        (7_200, "2 hours ago"),
        (864_000, "10 days ago"),
    ],
)
def test_an_age_is_in_the_largest_unit_it_fills(age_s: float, text: str) -> None:
    assert age_text(age_s) == text


def test_no_time_is_a_dash() -> None:
    assert time_text(0, 5.0) == "-"
    assert time_text(1_000_000, 1_000_060.0).endswith(" (1 minute ago)")


def test_a_share_is_neither_nothing_nor_all_unless_it_is() -> None:
    assert [percent(part, 1000) for part in (0, 1, 500, 999, 1000)] == ["0 %", "1 %", "50 %", "99 %", "100 %"]
    assert [len(bar(part, 1000)) for part in (0, 1, 500, 1000)] == [0, 1, 20, 40]


def test_columns_are_aligned() -> None:
    assert table([("A", "B"), ("long", "1"), ("x", "222")], right="lr") == "  A       B\n  long    1\n  x     222"


def test_what_a_terminal_could_obey_is_written_out() -> None:
    assert printable("Qwen é\x1b[2J\n") == "Qwen é\\x1b[2J\\n"
