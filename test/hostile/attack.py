"""Attack the programs: python test/hostile/attack.py [--kind KIND ...] [--seed N] [--only NUMBER ...]."""

import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(tests.parent), str(tests)]
    from hostile.command import main

    sys.exit(main())
