"""Check the trainer's flags without running it: python -m mlperf.cli.check_flags [flags of the trainer].

run_and_time.sh calls this, so that an invalid flag is reported before data is prepared. It runs without
third-party packages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mlperf.cli.program import run_program
from mlperf.cli.train import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the trainer accepts the flags; otherwise print its error and return its status."""

    def work() -> int:
        parse(sys.argv[1:] if arguments is None else arguments)
        return 0

    return run_program("dlrm_s_pytorch.py", work)


if __name__ == "__main__":
    sys.exit(main())
