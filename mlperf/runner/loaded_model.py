"""Python API: a trained model that predicts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlperf.benchmarks.data_sets import DATA_SETS
from mlperf.data.batch import RowSource
from mlperf.data.criteo.days import SPLITS
from mlperf.data.memory_rows import MemoryRows
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.data.row_batches import RowBatches
from mlperf.data.schema import Rows
from mlperf.evaluation.evaluate import Scorer, evaluate, scores_of
from mlperf.evaluation.metrics import Metrics, are_probabilities, diverged
from mlperf.runner.benchmark import open_for_inference
from mlperf.runner.data import data_set_of, open_split
from mlperf.runner.data_shape import row_source
from mlperf.runner.memory import resource_failures
from mlperf.runner.score_text import (
    load_numbering,
    open_text,
    prepared_scorer,
    report_ids,
    require_file,
    scores_of_text,
)
from mlperf.settings.flags import declared_flags
from mlperf.settings.from_flags import settings_from
from mlperf.settings.kinds import prefix_or_folder
from mlperf.settings.model import ModelSettings
from mlperf.settings.reports import ComplianceSettings, ReportSettings
from mlperf.settings.run import RunSettings
from mlperf.settings.settings import Settings
from mlperf.training.saved_model import SavedModel, read_saved_model
from mlperf.util.errors import RunError, UsageError

Scores = npt.NDArray[np.float32]

_BATCH_SIZE = 4096
_INT32 = np.iinfo(np.int32)

# By key of the flag: why `load` does not take it.
_REFUSED = {
    "load_model": "the checkpoint is the first argument",
    "load_weights": "the checkpoint is the first argument",
    "processed_data_file": "pass it as data",
    "data_generation": "the data is prepared",
    "inference_only": "a loaded model is not trained",
    "split": "the methods take the split",
    "save_predictions": "predict() returns the predictions",
    "score_text": "predict() takes the text",
    "verify_data": "tools/verify_data.py compares the checksums",
}
# Settings whose flags it does not take: a loaded model writes no files.
_OF_RUNS = (RunSettings, ReportSettings, ComplianceSettings)


class Model:
    """A trained model and the prepared data whose numbering of ids it knows, as `mlperf.load` returns it.

    settings: those with which it was loaded.
    """

    def __init__(self, settings: Settings, prepared: PreparedData, scorer: Scorer) -> None:
        self.settings = settings
        self._prepared = prepared
        self._scorer = scorer
        self._ids: KnownIds | None = None  # read when they are needed

    def predict(self, data: str | os.PathLike[str] | Mapping[str, npt.ArrayLike]) -> Scores:
        """Return the predicted probability of a click for each row, float32 [N].

        data: "train", "test" or "val", a split of the prepared data; the path of raw text, with or without
        labels; or arrays by name with the columns of the prepared files: "dense", [N, dense features], not
        transformed, NaN where a value is missing; and "ids", whole numbers [N, ids of a row], the rows of the
        tables, table by table.

        UsageError if arrays have other shapes or types. RunError if a value is invalid or a file has changed;
        DivergedError, its subclass, if a prediction is not a number in [0, 1].
        """
        with resource_failures():
            if isinstance(data, str) and data in SPLITS:
                return self._scores(self._split(data))
            if isinstance(data, Mapping):
                return self._scores(self._arrays(data))
            if not isinstance(data, str | os.PathLike):
                kind = type(data).__name__
                raise UsageError(
                    f"predict: got {kind}; must be {', '.join(SPLITS)}, the name of a file, or "
                    '{"dense": ..., "ids": ...}'
                )
            path = Path(data)
            if isinstance(data, str) and not os.path.exists(path):
                raise UsageError(f"predict({data!r}): must be {', '.join(SPLITS)} or the name of a file")
            return self._scores_of_text(path)

    def evaluate(self, split: str = "test") -> Metrics:
        """Return the six metrics of a split of the prepared data: train, test or val. Errors as of `predict`."""
        if split not in SPLITS:
            raise UsageError(f"evaluate({split!r}): must be one of {', '.join(SPLITS)}")
        with resource_failures():
            return evaluate(self._scorer, self._split(split), all_metrics=True)

    def _scores(self, rows: RowBatches) -> Scores:
        if rows.rows == 0:
            return np.empty(0, np.float32)
        scores, _ = scores_of(self._scorer, rows)
        if not are_probabilities(scores):
            raise diverged()
        result: Scores = scores.cpu().numpy()
        return result

    def _scores_of_text(self, path: Path) -> Scores:
        require_file(path)
        if self._ids is None:
            self._ids = load_numbering(self.settings, self._prepared)
        text = open_text(path, self.settings, self._prepared, self._ids)
        parts = scores_of_text(self.settings, self._prepared, self._scorer, text)
        scores = [part.cpu().numpy() for part, _ in parts]
        report_ids(text, self._prepared)
        return np.concatenate(scores)

    def _split(self, name: str) -> RowBatches:
        return open_split(self.settings, self._prepared, name, is_evaluated=True)

    def _arrays(self, arrays: Mapping[str, npt.ArrayLike]) -> MemoryRows:
        """Return the rows of "dense" and "ids"."""
        if set(arrays) != {"dense", "ids"}:
            raise UsageError(f'predict: the arrays are {", ".join(map(repr, arrays))}; must be "dense" and "ids"')
        reference = self._prepared.reference
        if reference is not None and reference.ids_per_table is not None:
            raise UsageError(
                f"predict: the several ids per table of {self._prepared.train} are not taken from arrays"
            )
        form = row_source(self.settings, self._prepared, Path("predict"))
        schema = form.schema
        dense = _array("dense", arrays["dense"], schema.dense_features)
        ids = _whole("ids", _array("ids", arrays["ids"], schema.columns - schema.first_id), 0, nan=np.nan)
        if len(ids) != len(dense):
            raise UsageError(f"predict: dense has {len(dense)} rows, ids has {len(ids)}; must be equal")
        rows = np.zeros((len(dense), schema.columns), np.int32)
        if form.dense.is_float:
            with np.errstate(over="ignore"):  # infinite values are refused when the rows are read
                rows[:, schema.dense_columns] = dense.astype(np.float32).view(np.int32)
        else:
            rows[:, schema.dense_columns] = _whole("dense", dense, _INT32.min, nan=0)
        rows[:, schema.id_columns] = ids
        return self._memory_rows(rows, form)

    def _memory_rows(self, rows: Rows, form: RowSource) -> MemoryRows:
        return MemoryRows(
            rows,
            form,
            self.settings.data.test_batch_size,
            pin_memory=self.settings.use_gpu,
            multi_hot=self._prepared.multi_hot,
        )


def load(checkpoint: str | os.PathLike[str], data: str | os.PathLike[str], **flags: Any) -> Model:
    """Return a trained model that predicts. Nothing is printed; messages go to Python's logging ("mlperf").

    checkpoint: a file, or the folder of a sharded checkpoint. The flags of the model are those that it records.
    data: prefix X of prepared data with the numbering of ids with which the model was trained.
    flags: further flags as for `mlperf.run`, such as use_gpu, precision, test_mini_batch_size (by default, 4096
    samples are scored together) or quantize_emb_with_bit; for checkpoints without flags, those of the model.

    >>> import mlperf
    >>> model = mlperf.load("model.pt", data="processed")  # doctest: +SKIP
    >>> model.predict("test")  # doctest: +SKIP
    array([0.23617871, 0.07912037, ...], dtype=float32)

    Raises:
        mlperf.util.errors.UsageError: a flag is unknown, out of range or contradicts the checkpoint or the data.
        mlperf.util.errors.RunError: the checkpoint or the data is missing or damaged, or does not fit the other.
    """
    refused = {flag.key: "mlperf.run takes it" for cls in _OF_RUNS for _, flag in declared_flags(cls)} | _REFUSED
    for key in flags.keys() & refused.keys():
        raise UsageError(f"{key}: not an argument of load(): {refused[key]}")
    path, prefix = Path(checkpoint), _existing_prefix(data)
    saved = read_saved_model(path)
    chosen = {"test_mini_batch_size": _BATCH_SIZE, "data_set": data_set_of(prefix), **_model_flags(saved), **flags}
    settings = settings_from(
        {
            **_table_rows(saved, chosen),
            **chosen,
            "load_model": path,
            "processed_data_file": prefix,
            "data_generation": "dataset",
            "inference_only": True,
        }
    )
    model, prepared = open_for_inference(settings, ())
    with resource_failures():
        return Model(settings, prepared, prepared_scorer(settings, model))


def _existing_prefix(data: str | os.PathLike[str]) -> Path:
    """Return the prefix of prepared data. UsageError if it cannot be one, RunError if there is no such data."""
    try:
        prefix = prefix_or_folder(os.fspath(data))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"data: {error}") from None
    if reference_prefix(prefix) is None and not DatasetPaths.from_name(prefix).any_exists():
        raise RunError(f"{prefix}: no prepared data found")
    return prefix


def _model_flags(saved: SavedModel) -> dict[str, str]:
    """Return the recorded flags of the model and of several ids per table, as keywords."""
    names = {flag.name: flag.key for _, flag in declared_flags(ModelSettings)}
    names |= {f"--{key.replace('_', '-')}": key for key in ("multi_hot_sizes", "multi_hot_distribution")}
    return {names[name]: value for name, value in saved.flags.items() if name in names and value is not None}


def _table_rows(saved: SavedModel, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of the tables as a keyword, if flags decide on them and none is given."""
    traits = DATA_SETS.get(flags["data_set"])
    if traits is None or not traits.limits_rows or not saved.table_rows or "max_ind_range" in flags:
        return {}
    return {"arch_embedding_size": saved.table_rows}


def _array(name: str, values: npt.ArrayLike, columns: int) -> npt.NDArray[Any]:
    """Return numbers [N, columns] as an array. UsageError if they are none."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise UsageError(f"predict: {name}: {error}") from None
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] != columns:
        raise UsageError(
            f"predict: {name} has dtype {array.dtype} and shape {array.shape}; must be numbers [N, {columns}]"
        )
    return array


def _whole(name: str, values: npt.NDArray[Any], minimum: int, *, nan: float) -> npt.NDArray[np.int32]:
    """Return whole numbers as int32, with `nan` for NaN. UsageError if one is not whole or out of range."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=nan, posinf=np.inf, neginf=-np.inf)
        wrong = values != np.round(values)
    else:
        wrong = np.zeros(values.shape, bool)
    wrong |= (values < minimum) | (values > _INT32.max)
    if wrong.any():
        row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise UsageError(
            f"predict: {name}: row {row + 1}, column {column + 1}: {values[row, column]} is not a whole number "
            f"from {minimum} to {_INT32.max}"
        )
    return values.astype(np.int32)
