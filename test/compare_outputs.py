"""Compare what two programs printed: equal, or equal but for the last digit of numbers.

    python test/compare_outputs.py ONE OTHER

Prints the differing lines. Status 0 also where numbers differ by at most 1e-5 and nothing else does, which is
said; 1 otherwise.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

_NUMBER = re.compile(r"-?\d+\.\d*(?:e[-+]?\d+)?|-?\d+")
_TOLERANCE = 1e-5


def within_tolerance(one: str, other: str) -> bool:
    """Return whether two texts differ in numbers by at most 1e-5 and, spacing apart, in nothing else."""
    if _NUMBER.sub("#", one).split() != _NUMBER.sub("#", other).split():
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(abs(float(left) - float(right)) <= 1.001 * _TOLERANCE for left, right in pairs)


def main(names: list[str]) -> int:
    """Compare the two files named."""
    one, other = (Path(name).read_text() for name in names)
    if one == other:
        return 0
    sys.stdout.writelines(difflib.unified_diff(one.splitlines(True), other.splitlines(True), *names, n=0))
    if within_tolerance(one, other):
        print("A last printed digit was rounded the other way: the numbers agree to 1e-5.")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
