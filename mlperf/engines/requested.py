"""Check that the engine of a run supports its flags, before anything is opened. Needs no third-party package."""

from __future__ import annotations

from mlperf.engines.torchrec.allowed import check_sharding
from mlperf.engines.torchrec.supported import unsupported_setting
from mlperf.settings.flags import changed_flags
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError

# Flags without meaning for the other engines, which run on one process. --dist-backend is not among them: it only
# confirms what --use-gpu says, and scripts pass it for any number of processes.
_OF_TORCHREC = ("--sharding", "--sharding-constraints")


def check_engine(settings: Settings, size: int) -> None:
    """Raise UsageError if --engine does not fit the number of processes, or other flags do not fit the engine.

    RunError if the file of --sharding-constraints cannot be read.
    """
    engine = settings.processes.engine
    if engine == "torchrec" or (engine == "auto" and size > 1):
        if (reason := unsupported_setting(settings)) is not None:
            raise UsageError(reason)
        check_sharding(settings)
        return
    if size > 1:
        raise UsageError(
            f"--engine={engine} runs on one process, but {size} were started; omit the flag, or pass torchrec"
        )
    for flag, value in changed_flags(settings.processes):
        if flag.name in _OF_TORCHREC:
            raise UsageError(
                f"{flag.name}={flag.kind.show(value)} requires several processes or --engine=torchrec"
            )
