"""docs/formats/ssd.md draws the files of the SSD tier as csrc/storage/ssd_layout.h lays them out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Fields = list[tuple[str, int, int]]


def fields_of_document(heading: str) -> Fields:
    text = (ROOT / "docs/formats/ssd.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", section, re.MULTILINE)
    return [(name, int(offset), int(length)) for offset, length, name in rows]


def fields_of_code(namespace: str) -> Fields:
    text = (ROOT / "csrc/storage/ssd_layout.h").read_text(encoding="utf-8")
    section = text.split(f"namespace {namespace} {{")[1].split("}  // namespace")[0]
    found = re.findall(r"^inline constexpr Field (\w+)\{(\d+), (\d+)\};", section, re.MULTILINE)
    return [(name, int(offset), int(length)) for name, offset, length in found]


def test_the_document_and_the_code_have_the_same_fields() -> None:
    assert fields_of_document("The header") == fields_of_code("header")
    assert fields_of_document("A record") == fields_of_code("record")


def test_fields_follow_each_other_without_a_gap() -> None:
    for namespace, size_bytes in (("header", 4096), ("record", 64)):
        end = 0
        for _, offset, length in fields_of_code(namespace):
            assert offset == end
            end += length
        assert end == size_bytes
