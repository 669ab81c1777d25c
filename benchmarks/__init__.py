"""Benchmarks: each answers one question, beside its limit or a peer in the same run. `make bench` runs them all."""

from __future__ import annotations
