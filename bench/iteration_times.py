"""Print the minimum and median time per iteration in a console log.

    python bench/iteration_times.py LOG

The last line of an epoch may cover fewer iterations; it is weighted equally.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from statistics import median

_TIME = re.compile(r"Finished training it \d+/\d+ of epoch \d+, ([\d.]+) ms/it")


def main(path: Path) -> int:
    """Print one line; return 1 if the log has no times."""
    times = [float(match[1]) for match in _TIME.finditer(path.read_text())]
    if not times:
        print(f"{path}: has no ms/it: --print-time was off or the run was too short", file=sys.stderr)
        return 1
    print(f"{path.name}: min {min(times):.2f} ms/it, median {median(times):.2f} ms/it, {len(times)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
