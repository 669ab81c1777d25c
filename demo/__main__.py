"""Entry of `python demo`: takes flexkv as it is installed, and the demo from the tree."""

from __future__ import annotations

import sys
from pathlib import Path

# The folder demo/ itself would offer its files as top-level modules; the tree goes last, behind what is installed.
sys.path[0:1] = []
sys.path.append(str(Path(__file__).resolve().parent.parent))

from demo.run import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
