"""`python -m flexkv.cli` is the `flexkv` command, also where flexkv is not installed."""

from __future__ import annotations

from flexkv.cli.main import flexkv

flexkv(prog_name="flexkv")
