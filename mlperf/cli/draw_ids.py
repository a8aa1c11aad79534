"""Draw the ids that --multi-hot-sizes adds: python -m mlperf.cli.draw_ids [flags of the trainer].

The trainer does this, too, if it is not done. run_and_time.sh calls this first, so that it is not timed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mlperf.cli.train import parse
from mlperf.util.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the ids are drawn, or need not be; otherwise print the error and return its status."""

    def work() -> int:
        settings = parse(arguments)
        from mlperf.runner.benchmark import draw_ids  # late: usage errors need no torch

        draw_ids(settings)
        return 0

    return run_program("dlrm_s_pytorch.py", work)


if __name__ == "__main__":
    sys.exit(main())
