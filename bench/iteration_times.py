"""Print the minimum and median time per iteration in a console log.

    python bench/iteration_times.py LOG

The last line of an epoch may cover fewer iterations; it is weighted equally. A log without times, such as that of
--inference-only, is not an error.
"""

from __future__ import annotations

import checkout  # noqa: F401

import re
import sys
from functools import partial
from pathlib import Path
from statistics import median

from mlperf.util.program import run_program

_TIME = re.compile(r"Finished training it \d+/\d+ of epoch \d+, ([\d.]+) ms/it")


def main(path: Path) -> None:
    """Print one line."""
    times = [float(match[1]) for match in _TIME.finditer(path.read_text())]
    if not times:
        print(f"{path.name}: has no time per iteration: nothing was trained, or no line was printed")
        return
    lines = "1 line" if len(times) == 1 else f"{len(times)} lines"
    print(f"{path.name}: min {min(times):.2f} ms/it, median {median(times):.2f} ms/it, {lines}")


if __name__ == "__main__":
    sys.exit(run_program("iteration_times.py", partial(main, Path(sys.argv[1]))))
