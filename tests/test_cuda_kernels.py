"""The kernels that are shipped are those that csrc/cuda/gather.cu and slim.cu make."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NVCC_RELEASE = "release 13.0"
"""Another one would make other text of the same kernels."""


def nvcc_release() -> str:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return ""
    return subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.mark.skipif(NVCC_RELEASE not in nvcc_release(), reason=f"no nvcc, {NVCC_RELEASE}, is here")
def test_the_shipped_kernels_are_up_to_date() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "cuda_kernels.sh", "--check"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
