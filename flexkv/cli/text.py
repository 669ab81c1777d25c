"""How values are written for people: sizes, ages, times, aligned tables, bars. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

__all__ = ["age_text", "bar", "percent", "printable", "size_text", "table", "time_text"]

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_AGES = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def size_text(size_bytes: int) -> str:
    """Return the size in the largest unit that it fills, with three digits: '512 B', '1.50 GiB'."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = size_bytes / 1024
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1024
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {unit}"


def age_text(age_s: float) -> str:
    """Return the age in the largest unit that it fills: '3 hours ago'."""
    if age_s < 0:
        return "in the future"
    for unit, unit_s in _AGES:
        if age_s >= unit_s:
            number = int(age_s // unit_s)
            return f"{number} {unit}{'s' if number != 1 else ''} ago"
    return "now"


def time_text(at_s: int, now_s: float) -> str:
    """Return a local time and its age; '-' for none (0)."""
    if at_s <= 0:
        return "-"
    return f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(at_s))} ({age_text(now_s - at_s)})"


def percent(part: int, whole: int) -> str:
    """Return a share; what is there is never 0 %, and what is not all is never 100 %."""
    if part == 0 or whole == 0:
        return "0 %"
    if part == whole:
        return "100 %"
    return f"{min(99, max(1, round(100 * part / whole)))} %"


def bar(part: int, whole: int, width: int = 40) -> str:
    """Return a bar that is as long as the share; at least one mark for what is there."""
    return "#" * max(1, round(width * part / whole)) if part else ""


def printable(text: str) -> str:
    """Return the text with what a terminal could take for a command written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def table(rows: Sequence[Sequence[str]], right: str = "", indent: str = "  ") -> str:
    """Return the rows as aligned columns, without trailing blanks; `right` has an 'r' where a column is numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def cell(text: str, column: int) -> str:
        is_right = right[column : column + 1] == "r"
        return text.rjust(widths[column]) if is_right else text.ljust(widths[column])

    return "\n".join(indent + "  ".join(cell(text, i) for i, text in enumerate(row)).rstrip() for row in rows)
