"""Compare the outputs of two programs.

    python test/compare_outputs.py ONE OTHER

Prints the lines that differ. The exit status is 0 if the outputs are equal, or if only numbers differ, by at
most 1e-5 (a message reports this); otherwise it is 1.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

_NUMBER = re.compile(r"-?\d+\.\d*(?:e[-+]?\d+)?|-?\d+")
_TOLERANCE = 1e-5


def within_tolerance(one: str, other: str) -> bool:
    """Return whether two texts are equal up to white space and differences of at most 1e-5 between numbers."""
    if _NUMBER.sub("#", one).split() != _NUMBER.sub("#", other).split():
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(abs(float(left) - float(right)) <= 1.001 * _TOLERANCE for left, right in pairs)


def main(names: list[str]) -> int:
    """Compare two files."""
    one, other = (Path(name).read_text() for name in names)
    if one == other:
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(one.splitlines(True), other.splitlines(True), names[0], names[1], n=0)
    )
    if within_tolerance(one, other):
        print("A last printed digit was rounded the other way: the numbers agree to 1e-5.")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
