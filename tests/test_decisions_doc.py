"""docs/DECISIONS.md: every decision that the tree names is there, in order, with files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "DECISIONS.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| D(\d+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
NAMED = re.compile(r"\bD([1-9]\d?)\b(?!-)")


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) == TEXT.count("\n| D")


@pytest.mark.parametrize(("number", "_", "places"), ROWS, ids=[f"D{number}" for number, _, _ in ROWS])
def test_the_files_of_a_decision_exist(number: str, _: str, places: str) -> None:
    files = re.findall(r"`([\w./]+)`", places)
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_pages_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_every_decision_that_a_comment_names_is_on_the_page() -> None:
    known = {number for number, _, _ in ROWS}
    sources = [
        path
        for folder in ("flexkv", "csrc", "docs", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".h", ".cpp", ".md"}
    ]
    named = {number: path.name for path in sources for number in NAMED.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert {number: name for number, name in named.items() if number not in known} == {}
