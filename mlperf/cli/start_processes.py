"""Start the trainer in several processes: python -m mlperf.cli.start_processes [flags of torchrun] PROGRAM ...

run_and_time.sh calls this. torchrun itself ends with status 1 whatever the processes ended with, and prints
reports of its own. This prints nothing but one line if a process is killed or torchrun fails, and returns the
status of the process that ended first: 3 if the target was missed.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from mlperf.util.errors import RunError
from mlperf.util.program import run_program
from mlperf.util.signals import STOPPING


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the processes, wait for them and return their status; 128 plus the number of a signal that arrived."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_program("torchrun", lambda: _start(given))


def _start(arguments: Sequence[str]) -> int:
    _import_torch_quietly()
    from torch.distributed import DistError
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.disable(logging.CRITICAL)  # in this process only: the trainer reports its errors
    signals = ",".join(number.name for number in STOPPING)
    try:
        with TemporaryDirectory() as folder:
            own = (f"--signals-to-handle={signals}", f"--log-dir={folder}")
            torchrun.run(torchrun.parse_args([*own, *arguments]))
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        if any(other.exitcode > 0 for other in failed.failures.values()):
            return RunError.exit_status  # another process has reported it
        raise RunError(f"rank {rank} was ended by {signal.Signals(-failure.exitcode).name}") from None
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except (DistError, RendezvousError) as error:
        raise RunError(f"the processes cannot be connected: {error}") from None
    return 0


def _import_torch_quietly() -> None:
    """Import PyTorch without the reports of its C++ code: its exceptions say the same. The trainer keeps them."""
    before = os.environ.get("TORCH_CPP_LOG_LEVEL")
    os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # read while it is imported
    import torch.distributed  # noqa: F401

    if before is None:
        del os.environ["TORCH_CPP_LOG_LEVEL"]
    else:
        os.environ["TORCH_CPP_LOG_LEVEL"] = before


if __name__ == "__main__":
    sys.exit(main())
