"""Times making the tools tree from its downloads: `benchmarks/tools_tree.py [--rounds 3] [--work DIR]`.

The first round fetches what is missing and is not counted.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from dibble.events import Events  # noqa: E402
from dibble.sandbox.enter import run_in_namespace  # noqa: E402
from dibble.sandbox.tools import ToolsTree  # noqa: E402


def make(work: Path) -> float:
    """Seconds from the downloads to the tree."""

    def inside() -> float:
        for name in ("packages", "tools"):
            shutil.rmtree(work / name, ignore_errors=True)
        began = time.monotonic()
        ToolsTree(work, Events()).ensure("core")
        return time.monotonic() - began

    return run_in_namespace(inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache/dibble-tools-benchmark")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    make(options.work)
    seconds = [make(options.work) for _ in range(options.rounds)]
    print(f"tools tree from downloads: median {statistics.median(seconds):.1f} s of {sorted(seconds)}")


if __name__ == "__main__":
    main()
