"""Flags of the trainer that a timed run rejects, because it would not be a result or its output would be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlperf.settings.flags import declared_flags
from mlperf.settings.from_flags import make_trainer_parser
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError

_USE_TRAINER = "use dlrm_s_pytorch.py for that"
_DATA = "the data of a timed run is selected by DATADIR"
_PREPARED = "the data of a timed run is prepared without it"
# By key of the flag (`Flag.key`): why run_and_time.sh refuses it, or what sets it.
_REFUSED = {
    "load_model": f"a run that starts from a checkpoint is not a result; {_USE_TRAINER}, which marks its log",
    "load_weights": f"a run with given weights is not a result; {_USE_TRAINER}, which marks its log",
    "config": "the settings of a timed run are selected by CONFIG",
    "dry_run": f"a timed run trains; {_USE_TRAINER}",
    "resume": f"a run that starts from a checkpoint is not a result; {_USE_TRAINER}",
    "inference_only": f"a timed run trains; {_USE_TRAINER}",
    "data_generation": _DATA,
    "data_set": _DATA,
    "raw_data_file": _DATA,
    "processed_data_file": _DATA,
    "max_ind_range": "the benchmark sets it; a configuration (CONFIG) may override it by MAX_IND_RANGE",
    "data_randomize": _PREPARED,
    "data_sub_sample_rate": _PREPARED,
    "numpy_rand_seed": "the seed of a timed run is set by SEED",
    "mlperf_edition": "the edition of a timed run is set by EDITION",
    "mlperf_log_file": "the folder of the log is set by LOGDIR",
    "mlperf_cache_cleared": "a timed run drops the page cache itself, and logs whether it could",
}


def check_timed_run(arguments: Sequence[str], others: Mapping[str, str] | None = None, *, where: str = "") -> None:
    """Raise UsageError if the flags include one that run_and_time.sh sets itself or cannot make a result with.

    arguments: flags given by the user. others: further flags to refuse, by key, with the reasons; a reason given
    here replaces the one above. where: text between flag and reason. A flag that the trainer does not have is
    reported as by `parse`.
    """
    reasons = {**_REFUSED, **(others or {})}
    given = vars(make_trainer_parser().parse_args(arguments))
    for _, flag in declared_flags(Settings):
        if flag.key in given and flag.key in reasons:
            raise UsageError(f"{flag.arguments(given[flag.key])[0]}{where}: {reasons[flag.key]}")
