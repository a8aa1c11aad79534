"""Check a compliance log with the official checker: python tools/check_log.py LOG [--edition 2.1.0]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlperf.compliance.check import check_log
from mlperf.compliance.rulesets import DEFAULT_EDITION, EDITIONS
from mlperf.errors import RunError


def main() -> int:
    """Print a verdict per edition; 0 if all pass, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Check an MLPerf training log with the official checker.")
    parser.add_argument("log", type=Path)
    parser.add_argument(
        "--edition", choices=[*EDITIONS, "all"], action="append", help=f"default {DEFAULT_EDITION.name}"
    )
    arguments = parser.parse_args()
    asked = arguments.edition or [DEFAULT_EDITION.name]
    try:
        results = check_log(arguments.log, list(EDITIONS) if "all" in asked else asked)
    except RunError as error:
        print(f"check_log.py: error: {error}", file=sys.stderr)
        return 1
    for result in results:
        print(f"official checker, edition {result.edition}: {'SUCCESS' if result.passed else 'FAILED'}")
        for finding in result.findings:
            print(f"    {finding}")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
