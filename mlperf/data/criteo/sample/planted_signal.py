"""Rows of a synthetic click log: dense features, ids, and clicks drawn with a known probability.

    probability = sigmoid(bias + dense part + effect of each id + products of the vectors of two ids)

No model ranks samples better than this probability, so its AUC is the best possible one. The dense part is a
function of the dense features, which are independent of the ids, so its AUC is the best possible one for the dense
features alone. Shapes: N rows, T tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from mlperf.data.schema import CRITEO

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Expected values of the two AUCs; the AUC of a split varies around them.
BEST_AUC = 0.84
DENSE_AUC = 0.65
_BIAS = -1.6

# Distinct ids of each table of the Terabyte data, as published for DLRM-DCNv2 (MLPerf Training from 3.0 on). They
# are capped because a small sample does not contain more. They are part of the definition of the sample, whose
# bytes must not change; the table sizes of the benchmarks are in mlperf.benchmarks.
_TERABYTE_IDS = (
    *(40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10),
    *(2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36),
)
_IDS = np.minimum(_TERABYTE_IDS, 40_000)
_FIRST_ID = np.concatenate(([0], np.cumsum(_IDS)[:-1]))  # [T], first id of each table, numbered over all tables
_POPULARITY_EXPONENT = 1.1  # the r-th most popular id is drawn about r**-1.1 times as often as the first
_EMPTY_IDS = np.resize([0.0, 0.03, 0.1], CRITEO.tables)  # [T], probabilities
# Tables with few ids have larger effects: a model sees their ids often enough to learn them.
_EFFECT_SCALES = _IDS**-0.25 / np.linalg.norm(_IDS**-0.25)
_PAIRS = ((2, 7), (6, 17), (8, 24), (13, 15))
_PAIR_DIMENSION = 4
_PAIR_SCALE = 0.2  # standard deviation of the sum of all products; that of all effects is 1

# Dense features are log-normal, rounded down, like counts; two columns contain negative values, like real data.
_INTEGER_MEAN = np.linspace(0.5, 6.0, CRITEO.dense_features)
_INTEGER_DEVIATION = np.linspace(1.0, 2.0, CRITEO.dense_features)
_INTEGER_SHIFT = np.array([0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
_EMPTY_INTEGERS = np.array([0.4, 0.0, 0.2, 0.2, 0.03, 0.2, 0.04, 0.0, 0.04, 0.4, 0.04, 0.7, 0.2])

_CALIBRATION_ROWS = 50_000


@dataclass(frozen=True)
class Rows:
    """N rows of the click log.

    values, empty: [N, columns], arguments of `render_rows`. clicks: [N].
    logit, dense: the logit and its dense part, [N] each.
    """

    values: IntArray
    empty: BoolArray
    clicks: BoolArray
    logit: FloatArray
    dense: FloatArray


class PlantedSignal:
    """The effects, drawn from `seed` and scaled so that the expected AUCs are BEST_AUC and DENSE_AUC."""

    def __init__(self, seed: int) -> None:
        stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        total = int(_IDS.sum())
        self._ids = _scrambled(np.arange(total, dtype=np.uint32), np.uint32(stream.integers(1 << 32)))
        popularity = [_popularity(int(ids)) for ids in _IDS]
        self._effects = np.concatenate(
            [
                scale * _standardized(stream.normal(size=len(weights)), weights)
                for scale, weights in zip(_EFFECT_SCALES, popularity, strict=True)
            ]
        )
        self._empty_effects = _EFFECT_SCALES * stream.normal(size=CRITEO.tables)
        self._vectors = np.concatenate(
            [_standardized(stream.normal(size=(len(weights), _PAIR_DIMENSION)), weights) for weights in popularity]
        )
        self._dense_weights = stream.normal(size=CRITEO.dense_features)
        self._dense_scale = self._id_scale = 1.0
        self._calibrate(stream)

    def draw(self, rows: int, stream: np.random.Generator) -> Rows:
        """Draw `rows` rows from `stream`."""
        values = np.empty((rows, CRITEO.columns), np.int64)
        empty = np.zeros((rows, CRITEO.columns), bool)
        integers, ranks, missing = self._draw_features(rows, stream)
        dense, sparse = self._parts(integers, ranks, missing)
        logit = _BIAS + dense + sparse
        clicks = stream.random(rows) < _sigmoid(logit)
        values[:, 0] = clicks
        values[:, CRITEO.dense_columns] = integers
        values[:, CRITEO.id_columns] = self._ids[ranks + _FIRST_ID]
        empty[:, 1:] = missing
        return Rows(values, empty, clicks, logit, dense)

    def _draw_features(self, rows: int, stream: np.random.Generator) -> tuple[IntArray, IntArray, BoolArray]:
        """Return dense features [N, columns], popularity ranks of ids [N, T], and the mask of empty fields."""
        logs = stream.normal(_INTEGER_MEAN, _INTEGER_DEVIATION, (rows, CRITEO.dense_features))
        integers = np.exp(logs).astype(np.int64) - _INTEGER_SHIFT
        # The inverse of the cumulative distribution of the popularity.
        power = 1 - _POPULARITY_EXPONENT
        edges = (1 + stream.random((rows, CRITEO.tables)) * ((_IDS + 1.0) ** power - 1)) ** (1 / power)
        ranks = np.minimum(edges.astype(np.int64) - 1, _IDS - 1)
        probabilities = np.concatenate((_EMPTY_INTEGERS, _EMPTY_IDS))
        missing = stream.random((rows, len(probabilities))) < probabilities
        return integers, ranks, missing

    def _parts(self, integers: IntArray, ranks: IntArray, missing: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return the contributions of the dense features and of the ids to the logit, [N] each."""
        known = np.where(missing[:, : CRITEO.dense_features], 0, integers).clip(min=0)
        dense = np.tanh((np.log1p(known) - _INTEGER_MEAN) / _INTEGER_DEVIATION) @ self._dense_weights
        ids = ranks + _FIRST_ID
        no_id = missing[:, CRITEO.dense_features :]
        sparse = np.where(no_id, self._empty_effects, self._effects[ids]).sum(1)
        for left, right in _PAIRS:
            products = (self._vectors[ids[:, left]] * self._vectors[ids[:, right]]).sum(1)
            products[no_id[:, left] | no_id[:, right]] = 0
            sparse += _PAIR_SCALE / np.sqrt(len(_PAIRS) * _PAIR_DIMENSION) * products
        return self._dense_scale * dense, self._id_scale * sparse

    def _calibrate(self, stream: np.random.Generator) -> None:
        """Scale one part after the other, twice, because each has a small effect on the AUC of the other."""
        dense, sparse = self._parts(*self._draw_features(_CALIBRATION_ROWS, stream))
        for _ in range(2):
            self._dense_scale = _scale_for(
                DENSE_AUC,
                lambda scale: _expected_auc(dense, scale * dense + self._id_scale * sparse),
            )
            self._id_scale = _scale_for(
                BEST_AUC,
                lambda scale: _expected_auc(both := self._dense_scale * dense + scale * sparse, both),
            )


def _scale_for(auc: float, auc_at: Callable[[float], float]) -> float:
    """Return the scale in [0, 8] at which the increasing function `auc_at` is `auc`, by bisection."""
    low, high = 0.0, 8.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if auc_at(middle) < auc:
            low = middle
        else:
            high = middle
    return high


def _expected_auc(score: FloatArray, logit: FloatArray) -> float:
    """Return the AUC of `score` if each row is a click with probability sigmoid(bias + logit)."""
    probability = _sigmoid(_BIAS + logit)
    labels = np.repeat([1, 0], len(score))
    weights = np.concatenate((probability, 1 - probability))
    return float(roc_auc_score(labels, np.tile(score, 2), sample_weight=weights))


def _sigmoid(logit: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-logit))


def _popularity(ids: int) -> FloatArray:
    """Return the probability of each of `ids` ids, the most popular first."""
    edges = np.arange(1.0, ids + 2) ** (1 - _POPULARITY_EXPONENT)
    return np.diff(edges) / (edges[-1] - edges[0])


def _standardized(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return `values` scaled to weighted mean 0 and standard deviation 1 along the first axis. weights: sum 1."""
    centred = values - weights @ values
    return centred / np.sqrt(weights @ centred**2)


def _scrambled(numbers: npt.NDArray[np.uint32], key: np.uint32) -> npt.NDArray[np.uint32]:
    """Bijective 32-bit mixing function (MurmurHash3's finalizer): every step is invertible."""
    mixed = numbers ^ key
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))
