"""docs/RELIABILITY.md names a test for every fault: each row is compared with the tests there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "RELIABILITY.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\|.*\| `(?P<file>[\w./]+)::(?P<name>\w+)` \|$", re.MULTILINE)
ROWS = [(match["file"], match["name"]) for match in ROW.finditer(TEXT)]
TABLE_LINES = [line for line in TEXT.splitlines() if line.startswith("|") and not re.match(r"\| fault \||\|---", line)]
FAULT_FILES = sorted((ROOT / "tests" / "faults").glob("test_*.py"))


def names_of_tests(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".cpp":  # a function that main calls, or hands on to be called for each seed or in a child
        main = text[text.index("int main(") :]
        called = re.findall(r"^  (?:if \(\w+\) )?(\w+)\(", main, re.MULTILINE)
        handed_on = re.findall(r"\b(\w+)\);$", main, re.MULTILINE)
        return {*called, *handed_on}
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    rules = {node.name for node in nodes if any("rule(" in ast.unparse(by) for by in node.decorator_list)}
    return rules | {node.name for node in nodes if node.name.startswith("test_")}


def test_every_row_ends_with_a_test() -> None:
    assert len(ROWS) == len(TABLE_LINES) > 40
    assert len(set(ROWS)) == len(ROWS)


@pytest.mark.parametrize(("file", "name"), ROWS)
def test_the_test_of_a_row_exists(file: str, name: str) -> None:
    path = ROOT / file
    assert path.is_file(), f"{file} does not exist"
    assert name in names_of_tests(path), f"{file} has no test {name}"


@pytest.mark.parametrize("path", FAULT_FILES, ids=lambda path: path.name)
def test_every_file_of_faults_is_on_the_page(path: Path) -> None:
    assert path.relative_to(ROOT).as_posix() in {file for file, _ in ROWS}


def test_the_page_says_how_to_run_the_longer_campaigns() -> None:
    section = TEXT[TEXT.index("## The longer campaigns") :]
    assert "make test-long" in section
    assert re.search(r"^test-long:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
