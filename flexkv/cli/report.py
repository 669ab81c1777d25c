"""What `flexkv cache` writes of stores: tables for people, values for JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from flexkv.cli.stores import AGE_BOUNDS, Blocks, Store
from flexkv.cli.text import bar, percent, printable, size_text, table, time_text
from flexkv.cli.verify import StoreCheck

__all__ = [
    "after_clearing",
    "before_clearing",
    "check_json",
    "checks_text",
    "count",
    "directory_json",
    "directory_text",
]

Found = tuple[Store, "Blocks | None", str]  # a store, its blocks, or why they cannot be looked at

_SHOWN_DIGITS = 16  # of a fingerprint; `--store` takes so many
_MAX_SHOWN = 10  # bad blocks of a store; JSON has all
_NOTHING = "no cache here"
_CHECK_HEAD: tuple[str, ...] = ("STORE", "MODEL", "STATE", "CHECKED", "BYTES", "BAD", "CHANGED", "BAD RECORDS")


def count(number: int, noun: str) -> str:
    """Return the number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _short(store: Store) -> str:
    return store.fingerprint[:_SHOWN_DIGITS]


def _model(store: Store) -> str:
    return printable(store.model) or "-"


def _state(store: Store) -> str:
    """Return what may be done with it: it is busy, idle, or of no use."""
    if store.is_ok:
        return "busy" if store.is_busy else "idle"
    return f"{store.state}, busy" if store.is_busy else store.state


def directory_json(root: str, found: Sequence[Found], disk: tuple[int, int]) -> dict[str, object]:
    """Return what `inspect` says of a directory."""
    return {
        "path": root,
        "disk_bytes": disk[0],
        "free_bytes": disk[1],
        "stores": [
            asdict(store) | {"problem": problem, "blocks": None if blocks is None else asdict(blocks)}
            for store, blocks, problem in found
        ],
    }


def directory_text(root: str, found: Sequence[Found], disk: tuple[int, int], *, now_s: float) -> str:
    """Return what `inspect` says of a directory."""
    free = f"disk of {size_text(disk[0])}, {size_text(disk[1])} free"
    if not found:
        return f"{root}: {_NOTHING}; {free}"
    footprint = size_text(sum(store.footprint_bytes for store, _, _ in found))
    lines = [f"{root}: {count(len(found), 'store')}, files of {footprint}; {free}", ""]
    rows = [("STORE", "MODEL", "STATE", "BLOCKS", "OF", "BYTES", "FILES", "TOKENS", "LAST OPENED OR CLOSED")]
    for store, blocks, _ in found:
        rows.append(
            (
                _short(store),
                _model(store),
                _state(store),
                f"{blocks.num_blocks:,}" if blocks else "-",
                f"{store.num_slots:,}" if store.is_ok else "-",
                size_text(blocks.num_bytes) if blocks else "-",
                size_text(store.footprint_bytes),
                f"{blocks.num_blocks * store.tokens_per_block:,}" if blocks else "-",
                time_text(store.used_at_s, now_s),
            )
        )
    lines.append(table(rows, right="lllrrrrr"))
    for store, blocks, problem in found:
        notes = [*_age_lines(blocks), *_note_lines(blocks)] if blocks else _problem_lines(store, problem)
        if notes:
            lines += ["", f"  {_short(store)} {_model(store)}", *notes]
    return "\n".join(lines)


def _age_lines(blocks: Blocks) -> Iterable[str]:
    """Return the histogram of ages from the first bin that is filled to the last."""
    filled = [i for i, one in enumerate(blocks.ages) if one.num_blocks]
    if not filled:
        return []
    labels = [*(f"up to {label} ago" for label, _ in AGE_BOUNDS), "longer ago"]
    rows = [("last used", "blocks", "bytes", "", "")]
    for i in range(filled[0], filled[-1] + 1):
        part = blocks.ages[i].num_blocks
        share, mark = percent(part, blocks.num_blocks), bar(part, blocks.num_blocks)
        rows.append((labels[i], f"{part:,}", size_text(blocks.ages[i].num_bytes), share, mark))
    return [table(rows, right="lrrrl", indent="    ")]


def _note_lines(blocks: Blocks) -> list[str]:
    notes = []
    if blocks.num_from_the_future:
        number = count(blocks.num_from_the_future, "block")
        notes.append(f"    {number} last used in the future: the clock was wrong then, or is now")
    if blocks.num_expired:
        note = "expired: the next start leaves them out, but for those that a living one hangs on"
        notes.append(f"    {count(blocks.num_expired, 'block')} {note}")
    return notes + _record_lines(len(blocks.damaged_records), blocks.num_records_of_before)


def _record_lines(num_damaged: int, num_of_before: int) -> list[str]:
    notes = []
    if num_damaged:
        notes.append(f"    {count(num_damaged, 'record')} damaged: what lay there is a miss")
    if num_of_before:
        notes.append(f"    {count(num_of_before, 'record')} of before the cache was last emptied: free slots")
    return notes


def _problem_lines(store: Store, problem: str) -> list[str]:
    """Return what becomes of a store whose blocks cannot be looked at."""
    follows = {
        "no header": "a start makes it anew",
        "damaged header": "it is being started or emptied" if store.is_busy else "a start empties it",
        "other version": "another version of the format wrote it; a start with the same fingerprint empties it",
        "not ours": "its record file is not FlexKV's, or cannot be read; it is left alone",
    }
    return [f"    {problem}" + (f": {follows[problem]}" if problem in follows else "")]


def check_json(check: StoreCheck) -> dict[str, object]:
    """Return what `verify` says of a store."""
    return {
        **asdict(check.store),
        "is_bad": check.is_bad,
        "problem": check.problem,
        "num_checked": check.num_checked,
        "num_changed": check.num_changed,
        "bad_blocks": [asdict(block) for block in check.bad],
        "damaged_records": check.damaged_records,
        "num_records_of_before": check.num_records_of_before,
    }


def checks_text(roots: Sequence[str], checks: Sequence[StoreCheck], total_bytes: int, took_s: float) -> str:
    """Return what `verify` says of all directories."""
    blocks = []
    for root in roots:
        here = [check for check in checks if check.store.root == root]
        if not here:
            blocks.append(f"{root}: nothing to verify")
            continue
        rows = [_CHECK_HEAD, *(_check_row(check) for check in here)]
        lines = [f"{root}: {count(len(here), 'store')}", "", table(rows, right="lllrrrrr")]
        for check in here:
            notes = _check_notes(check)
            if notes:
                lines += ["", f"  {_short(check.store)} {_model(check.store)}", *notes]
        blocks.append("\n".join(lines))
    num_blocks = sum(check.num_checked for check in checks)
    num_bad = sum(len(check.bad) for check in checks)
    num_damaged = sum(len(check.damaged_records) for check in checks)
    num_lost = sum(check.is_lost for check in checks)
    rate = f", {size_text(int(total_bytes / took_s))}/s" if total_bytes and took_s > 0 else ""
    verdict = f"{count(num_blocks, 'block')} checked, {size_text(total_bytes)} in {took_s:.1f} s{rate}: "
    parts = [(num_bad, "bad block"), (num_damaged, "bad record"), (num_lost, "lost store")]
    verdict += ", ".join(count(number, noun) for number, noun in parts if number) or "all whole"
    return "\n\n".join([*blocks, verdict])


def _check_row(check: StoreCheck) -> tuple[str, ...]:
    numbers: tuple[str, ...] = ("-",) * 5
    if not check.problem:
        size = size_text(check.num_checked * check.store.slot_bytes)
        found = (len(check.bad), check.num_changed, len(check.damaged_records))
        numbers = (f"{check.num_checked:,}", size, *(f"{number:,}" for number in found))
    return (_short(check.store), _model(check.store), _state(check.store), *numbers)


def _check_notes(check: StoreCheck) -> list[str]:
    if check.problem:
        return _problem_lines(check.store, check.problem)
    notes = [f"    slot {block.slot}, block {block.key}: {block.why}" for block in check.bad[:_MAX_SHOWN]]
    if len(check.bad) > _MAX_SHOWN:
        notes.append(f"    and {count(len(check.bad) - _MAX_SHOWN, 'bad block')} more; --json has all")
    if check.num_changed:
        notes.append(f"    {count(check.num_changed, 'block')} changed meanwhile: not judged")
    elif check.store.is_busy:
        notes.append("    busy: blocks that were written since are not checked")
    return notes + _record_lines(len(check.damaged_records), check.num_records_of_before)


def before_clearing(roots: Sequence[str], stores: Sequence[Store], *, now_s: float) -> str:
    """Return what lies in the directories, before anything is removed."""
    blocks = []
    for root in roots:
        rows = [("STORE", "MODEL", "STATE", "FILES", "LAST OPENED OR CLOSED")]
        for store in (store for store in stores if store.root == root):
            size, used = size_text(store.footprint_bytes), time_text(store.used_at_s, now_s)
            rows.append((_short(store), _model(store), _state(store), size, used))
        blocks.append(f"{root}: nothing to clear" if len(rows) == 1 else f"{root}:\n" + table(rows, right="lllr"))
    return "\n\n".join(blocks)


def after_clearing(removed: Sequence[Store], left: Sequence[tuple[Store, str]]) -> str:
    """Return what was removed and freed, and what was left and why."""
    lines = [f"removed {store.path}, {size_text(store.footprint_bytes)}" for store in removed]
    lines += [f"left {store.path}: {why}" for store, why in left]
    freed = size_text(sum(store.footprint_bytes for store in removed))
    lines.append(f"{count(len(removed), 'store')} removed, {freed} freed" if removed else "nothing was removed")
    return "\n".join(["", *lines])
