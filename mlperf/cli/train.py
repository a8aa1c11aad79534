"""The trainer, `dlrm_s_pytorch.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mlperf.settings.from_flags import parse
from mlperf.util.program import program_name, run_program

__all__ = ["main", "parse"]

EXIT_TARGET_MISSED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error, 3 target missed."""
    program = program_name("dlrm_s_pytorch.py")

    def work() -> int:
        settings = parse(arguments, program)
        # Imported late: --help and usage errors need no torch.
        from mlperf.runner.benchmark import run_benchmark
        from mlperf.training.events import Outcome

        return 0 if run_benchmark(settings).outcome is Outcome.SUCCESS else EXIT_TARGET_MISSED

    return run_program(program, work)


if __name__ == "__main__":
    sys.exit(main())
