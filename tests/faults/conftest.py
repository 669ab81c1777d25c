"""Where SSD tiers of the fault tests lie."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
LEAST_FREE_BYTES = 32 << 20


@pytest.fixture
def ssd(tmp_path: Path) -> Iterator[Path]:
    """A directory for an SSD tier: in memory where that can be had, so that no test waits for a disk others use."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < LEAST_FREE_BYTES:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="flexkv-faults-", dir=MEMORY) as directory:
        yield Path(directory)
