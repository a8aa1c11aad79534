"""Check the flags of a timed run.

    python -m mlperf.cli.check_flags [--processes=N] [flags of the script] -- [flags of the user]

run_and_time.sh calls this, so that an invalid flag, or one with which the run would not be a result or which its N
processes do not support, is reported before data is prepared. It runs without third-party packages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from mlperf.cli.train import parse
from mlperf.distributed.launchers import require_one_process
from mlperf.engines.requested import check_engine
from mlperf.settings.timed_run import check_timed_run
from mlperf.util.errors import UsageError
from mlperf.util.program import run_program

_PROCESSES = "--processes="
_STARTS_PROCESSES = (
    "a timed run starts its processes itself (NPROC, NNODES): start the script once on each node, or unset the "
    "variable"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if a timed run accepts the flags; otherwise print the error and return its status."""

    def work() -> int:
        require_one_process(reason=_STARTS_PROCESSES)
        flags = list(sys.argv[1:] if arguments is None else arguments)
        size = 1
        if flags and flags[0].startswith(_PROCESSES):
            size = int(flags.pop(0).removeprefix(_PROCESSES))
        end = flags.index("--") if "--" in flags else len(flags)
        of_script, of_user = flags[:end], flags[end + 1 :]
        check_timed_run(of_user)
        try:
            check_engine(parse([*of_script, *of_user]), size)
        except UsageError as error:
            raise UsageError(f"{error}{_origin(str(error), of_script, of_user)}") from None
        return 0

    return run_program("dlrm_s_pytorch.py", work)


def _origin(message: str, of_script: Sequence[str], of_user: Sequence[str]) -> str:
    """Return where flags in an error message come from that the user has not typed, "" if there are none."""
    typed = {flag.partition("=")[0] for flag in of_user}
    in_message = set(re.findall(r"--[a-z0-9-]+", message)) - typed
    flags = [flag for flag in of_script if flag.partition("=")[0] in in_message]
    return f" (the benchmark and its configuration set {' '.join(flags)})" if flags else ""


if __name__ == "__main__":
    sys.exit(main())
