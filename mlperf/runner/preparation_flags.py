"""Compare data that is already prepared with the flags of the preparation that a run is given."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from mlperf.data.prepare.agreement import require_agreement
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.origin import compare_raw_data
from mlperf.data.prepared.raw_files import raw_files
from mlperf.settings.data import DataSettings
from mlperf.settings.flags import changed_flags, flag_values
from mlperf.util.errors import UsageError

_log = logging.getLogger(__name__)


def check_preparation(prepared: PreparedData, data: DataSettings, given: Collection[str]) -> None:
    """Compare prepared data with the flags and the raw data of a run, which may also name what is prepared.

    given: keys of the flags that were given. UsageError if they contradict each other. Logs what has no effect.
    """
    _check_flags(prepared, data, given)
    require_agreement(prepared, data)
    if data.raw_data_file is not None:
        _check_raw_data(prepared, data.raw_data_file, data.data_set)
    _report_flags(prepared, data, given)


def _check_flags(prepared: PreparedData, data: DataSettings, given: Collection[str]) -> None:
    """Raise UsageError if the data was prepared with a flag that contradicts one that was given.

    These flags apply while the data is prepared, so prepared data cannot be converted. Another seed is no
    contradiction: it is also that of the training.
    """
    recorded = {
        "--data-set": prepared.data_set,
        "--max-ind-range": prepared.max_ind_range,
        "--data-sub-sample-rate": prepared.sub_sample_rate,
        "--data-randomize": prepared.randomize,
    }
    if data.traits.has_columns_file and prepared.traits is None:
        raise UsageError(
            f"--data-set={data.data_set}: {prepared.train} was prepared by another tool and has no manifest that "
            "describes its columns"
        )
    if prepared.traits is not None and (prepared.traits.limits_rows or prepared.traits.has_columns_file):
        if data.traits != prepared.traits:
            raise UsageError(
                f"--data-set={data.data_set}: {prepared.train} was prepared with {prepared.data_set}; pass that "
                "value"
            )
        if prepared.traits.limits_rows:
            del recorded["--max-ind-range"]  # the training limits the rows of the tables
    declared = {flag.name: (flag, value) for flag, value in flag_values(data)}
    for name, actual in recorded.items():
        flag, requested = declared[name]
        if (requested != flag.default or flag.key in given) and actual not in (None, requested):
            raise UsageError(
                f"{name}={requested}: {prepared.train} was prepared with {actual}; pass that value or omit the "
                "flag, or choose another --processed-data-file to prepare the data again"
            )


def _report_flags(prepared: PreparedData, data: DataSettings, given: Collection[str]) -> None:
    """Log flags of the preparation that have no effect, because the data is already prepared."""
    if {"data_randomize", "data_sub_sample_rate"} & set(given) and prepared.seed not in (None, data.seed):
        _log.warning(
            "%s: was prepared with --numpy-rand-seed=%d; --numpy-rand-seed=%d is only that of the training",
            *(prepared.train, prepared.seed, data.seed),
        )
    recorded = {"--data-sub-sample-rate": prepared.sub_sample_rate, "--data-randomize": prepared.randomize}
    changed = {flag.name: value for flag, value in changed_flags(data)}
    not_applied = [
        f"{name}={changed[name]}" for name, actual in recorded.items() if actual is None and name in changed
    ]
    if not_applied:
        flags = " ".join(not_applied)
        _log.warning("%s: prepared by another tool; these flags have no effect: %s", prepared.train, flags)


def _check_raw_data(prepared: PreparedData, raw_data_file: Path, data_set: str) -> None:
    """Raise UsageError if the data was prepared from other raw data; warn if that may only have changed."""
    raw_files(raw_data_file, prepared.data_set or data_set, prepared.columns)
    difference = compare_raw_data(prepared, raw_data_file)
    if difference is None:
        return
    if difference.other_data:
        raise UsageError(
            f"--raw-data-file={raw_data_file}: {difference.text}; omit the flag to use the prepared data, or "
            "choose another --processed-data-file"
        )
    advice = "; run tools/prepare_criteo.py to prepare it again" if difference.has_changed else ""
    _log.warning("%s; using the prepared data%s", difference.text, advice)
