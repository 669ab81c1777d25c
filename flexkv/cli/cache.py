"""`flexkv cache`: looks into the directories of the SSD tier, checks them, clears them.

DIR is what FLEXKV_SSD_CACHE_DIR names. Results go to stdout, questions, progress and errors to stderr. With --json
stdout is one JSON document.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import click

from flexkv import _core
from flexkv.cli import report
from flexkv.cli.stores import Blocks, Store, blocks_of, directories_of, is_refusal, named, refused, stores_in
from flexkv.cli.text import size_text
from flexkv.cli.verify import StoreCheck

__all__ = ["cache"]

_directories = click.argument("directories", metavar="DIR...", nargs=-1, required=True)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document for machines.")


@click.group()
def cache() -> None:
    """Look into the directories of the SSD tier, check or clear them.

    DIR is a directory as FLEXKV_SSD_CACHE_DIR names it; several may be given, also with ';' between them.
    """


@cache.command()
@_directories
@_json
def inspect(directories: Sequence[str], as_json: bool) -> None:
    """Show what is in there: models, blocks, bytes, when they were last used."""
    found = []
    for root in directories_of(directories):
        stores = [(store, *_blocks_or_problem(store)) for store in stores_in(root)]
        found.append((root, stores, _disk(root)))
    if as_json:
        click.echo(json.dumps({"directories": [report.directory_json(*one) for one in found]}, indent=2))
    else:
        click.echo("\n\n".join(report.directory_text(*one, now_s=time.time()) for one in found))


def _blocks_or_problem(store: Store) -> tuple[Blocks | None, str]:
    if not store.is_ok:
        return None, store.state
    try:
        return blocks_of(_core.SsdReader(store.root, store.fingerprint), store.slot_bytes), ""
    except OSError as error:
        if is_refusal(error):
            raise refused(error, store.path) from error
        return None, str(error)
    except ValueError:
        return None, "removed or emptied meanwhile"


def _disk(root: str) -> tuple[int, int]:
    """Return how many bytes the file system of the directory has, and how many are free for this user."""
    try:
        info = os.statvfs(root)
    except OSError as error:
        raise refused(error, root) from error
    return info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize


@cache.command()
@_directories
@_json
@click.option("--store", "fingerprint", metavar="FINGERPRINT", default="", help="Only this one.")
def verify(directories: Sequence[str], as_json: bool, fingerprint: str) -> None:
    """Read all blocks and check every byte against the records.

    Works beside an engine that serves from there. Exit status 1 when anything is damaged: it would be a miss, never
    wrong bytes.
    """
    roots = directories_of(directories)
    stores = [store for root in roots for store in stores_in(root)]
    checks = [StoreCheck.begin(store) for store in (named(stores, fingerprint) if fingerprint else stores)]
    total_bytes = sum(check.num_blocks * check.store.slot_bytes for check in checks)
    start_s = time.monotonic()
    with click.progressbar(length=total_bytes, label="verifying", file=sys.stderr) as progress:
        for check in checks:
            check.run(progress.update)
    is_bad = any(check.is_bad for check in checks)
    if as_json:
        click.echo(json.dumps({"is_bad": is_bad, "stores": [report.check_json(check) for check in checks]}, indent=2))
    else:
        click.echo(report.checks_text(roots, checks, total_bytes, time.monotonic() - start_s))
    if is_bad:
        raise click.exceptions.Exit(1)


@cache.command()
@_directories
@_json
@click.option("--store", "fingerprint", metavar="FINGERPRINT", default="", help="Only this one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(directories: Sequence[str], as_json: bool, fingerprint: str, yes: bool) -> None:
    """Remove what is in there, or one model's part of it.

    What an engine serves from, and what is not FlexKV's, is left as it is. Exit status 1 when the former was asked for.
    """
    if as_json and not yes:
        raise click.UsageError("--json does not ask; give --yes too")
    roots = directories_of(directories)
    stores = [store for root in roots for store in stores_in(root)]
    if fingerprint:
        stores = named(stores, fingerprint)
    removable = [store for store in stores if store.is_ours and not store.is_busy]
    if not as_json:
        click.echo(report.before_clearing(roots, stores, now_s=time.time()))
    if removable and not yes:
        total = size_text(sum(store.footprint_bytes for store in removable))
        click.confirm(f"Remove {report.count(len(removable), 'store')}, {total}?", abort=True, err=True)
    removed, left = [], []
    for store in stores:
        why = _remove(store) if store in removable else _why_not(store)
        if why:
            left.append((store, why))
        else:
            removed.append(store)
    if as_json:
        left_json = [asdict(store) | {"why": why} for store, why in left]
        click.echo(json.dumps({"removed": [asdict(store) for store in removed], "left": left_json}, indent=2))
    else:
        click.echo(report.after_clearing(removed, left))
    if any(store.is_ours for store, _ in left):
        raise click.exceptions.Exit(1)


def _why_not(store: Store) -> str:
    return "an engine serves from it" if store.is_ours else "it is not FlexKV's, or cannot be read"


def _remove(store: Store) -> str:
    """Remove the store. Return why not, when it could not be."""
    try:
        cleared = _core.clear_ssd_directories(store.root, store.fingerprint)
    except (_core.SsdBusyError, OSError, ValueError) as error:
        return str(error)
    if cleared.removed:
        return ""
    return "an engine has begun to serve from it" if cleared.busy else "it is gone, or no longer FlexKV's"
