"""Flags recorded in a checkpoint, compared with those of the run that loads it.

Most flags of the model show in the names and shapes of its weights. The others leave no trace there: weights
trained with tanh can be loaded into a model with ReLU, which then gives nonsense.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mlperf.data.prepared.dataset import PreparedData
from mlperf.settings.flags import Flag, declared_flags, flag_values
from mlperf.settings.settings import Settings
from mlperf.settings.training import EPSILON
from mlperf.training.checkpoint_data import DATA_ENTRIES, check_data, recorded_data
from mlperf.util.errors import RunError
from mlperf.util.printable import shown_name

# Values by the names of the flags, as text; None for a flag without a value.
Flags = Mapping[str, str | None]

# Not recorded: the rows of the tables may come from the data, the initial weights are gone, and the weights show
# their precision.
_NOT_RECORDED = frozenset({"--arch-embedding-size", "--mlp-init", "--embedding-init", "--embedding-precision"})
# They determine the names and shapes of the weights, and nothing else that affects the scores.
_SHOWN_BY_WEIGHTS = frozenset(
    {
        *("--arch-sparse-feature-size", "--arch-mlp-bot", "--arch-mlp-top", "--weighted-pooling"),
        *("--qr-flag", "--qr-threshold", "--qr-collisions"),
        *("--md-flag", "--md-threshold", "--md-temperature", "--md-round-dims"),
        *("--dcn-num-layers", "--dcn-low-rank-dim"),
    }
)
# The training settings that must not change when training is resumed.
_OF_TRAINING = frozenset({"--optimizer", "--adagrad-epsilon", "--mlperf-grad-accum-iter"})
# Compared only if training is resumed. Learned and fixed pooling weights give the same scores.
_USED_BY_TRAINING = _OF_TRAINING | {"--weighted-pooling", "--loss-function", "--loss-weights"}
# Flags of the preparation that apply before ids are numbered.
_PREPARATION = frozenset({"--data-set", "--max-ind-range", "--data-sub-sample-rate"})
# Values of flags that are recorded only if they have another one. Versions without these flags behaved like this.
_USUAL: dict[str, str | None] = {
    "--dcn-num-layers": None,
    "--dcn-low-rank-dim": None,
    "--adagrad-epsilon": f"{EPSILON}",
    "--multi-hot-sizes": None,
    "--multi-hot-distribution": None,
    "--data-set": "kaggle or terabyte",  # both number ids in the same way
}


def recorded_flags(settings: Settings, prepared: PreparedData | None) -> dict[str, str | None]:
    """Return the flags that a checkpoint records: of the model, of its training, and how its data was prepared.

    The preparation is unknown if another tool prepared the data. The entries of `recorded_data` are among them.
    """
    values = [(flag, value) for flag, value in flag_values(settings.model) if flag.name not in _NOT_RECORDED]
    values += [(flag, value) for flag, value in flag_values(settings.training) if flag.name in _OF_TRAINING]
    if settings.data.multi_hot.sizes is not None:
        values += [(flag, value) for flag, value in flag_values(settings.data.multi_hot) if flag.name in _USUAL]
    flags = {flag.name: _text(flag, value) for flag, value in values}
    if not settings.model.architecture.has_cross_network:
        del flags["--dcn-num-layers"], flags["--dcn-low-rank-dim"]
    if prepared is not None:
        traits = prepared.traits or settings.data.traits
        if traits.limits_rows or traits.has_columns_file:
            flags["--data-set"] = traits.name
        flags |= recorded_data(prepared)
    if prepared is not None and prepared.max_ind_range is not None:
        flags["--max-ind-range"] = str(prepared.max_ind_range)
        flags["--data-sub-sample-rate"] = str(prepared.sub_sample_rate)
    return {name: value for name, value in flags.items() if value != _USUAL.get(name, "")}


def _text(flag: Flag, value: object) -> str | None:
    return None if value is None else flag.kind.show(value)


def check_flags(
    recorded: object, current: Flags, path: Path, *, weights: Iterable[str], same_shapes: bool, trains: bool
) -> None:
    """Compare the flags recorded in the checkpoint `path` with those of this run, which loads it.

    weights: names of the weights. same_shapes: whether their names and shapes are those of the model; if not, the
    flags that determine them are compared too. trains: whether this run resumes the training; if not, the flags
    that only training uses are not compared.

    RunError, naming the flags and both values, if they contradict each other.
    """
    saved, current = _completed(checked_flags(recorded, path)), _completed(current)
    compared = {name for name in current if name not in _SHOWN_BY_WEIGHTS | _USED_BY_TRAINING | DATA_ENTRIES}
    if not same_shapes:
        compared |= _SHOWN_BY_WEIGHTS
    elif not any(name.endswith(".weight_q") for name in weights):
        compared.discard("--qr-operation")  # no table is compressed
    if trains:
        compared |= _USED_BY_TRAINING
    differing = [name for name in saved if name in compared & current.keys() and saved[name] != current[name]]
    prepared = [name for name in differing if name in _PREPARATION]
    if prepared:
        raise RunError(
            f"{path}: was trained on data prepared {_shown(prepared, saved)}, this data was prepared "
            f"{_shown(prepared, current)}, so its ids are numbered differently"
        )
    check_data(saved, current, path)
    if differing:
        raise RunError(
            f"{path}: was saved {_shown(differing, saved)} but is loaded {_shown(differing, current)}; "
            "pass the flags with which it was saved"
        )


def _completed(flags: Flags) -> Flags:
    """Return `flags` with those that are not recorded because they have their usual value."""
    return {**flags, **{name: value for name, value in _USUAL.items() if name not in flags}}


def checked_flags(recorded: object, path: Path) -> Flags:
    """Return the recorded flags. RunError if they are not flags, or if this version lacks one of them."""
    if not isinstance(recorded, dict) or not all(
        isinstance(name, str) and (value is None or isinstance(value, str)) for name, value in recorded.items()
    ):
        raise RunError(f"{path}: damaged: its recorded flags are not names with values")
    known = {flag.name for _, flag in declared_flags(Settings)} | DATA_ENTRIES
    for name, value in recorded.items():
        if name not in known and value not in (None, "false"):
            raise RunError(
                f"{path}: was saved with {shown_name(name)}={shown_name(value)}, which this version does not have"
            )
    return recorded


def _shown(names: Iterable[str], values: Flags) -> str:
    """Return flags as typed: "with --optimizer=sgd and without --arch-interaction-itself"."""
    return " and ".join(_phrase(name, values[name]) for name in names)


def _phrase(name: str, value: str | None) -> str:
    if value in (None, "false"):
        return f"without {name}"
    return f"with {name}" if value == "true" else f"with {name}={shown_name(value)}"
