"""Compiled loops that decode rows of a binary file into labels, dense features and ids.

T tables.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.multi_hot import Ids, IntArray
from mlperf.data.schema import Rows

FloatArray = npt.NDArray[np.float32]

# Rows decoded together: they stay in the first-level cache while each of their columns is read.
_DECODED_TOGETHER = 128


# The signature compiles the function (or loads it from the cache) on import, before the timed part of a run.
@numba.njit(
    "boolean(int32[:, ::1], float32[:, ::1], int64[::1], int64[::1], int64[::1], int64, boolean, int32, float32,"
    " int64, float32[:, ::1], int64[::1], float32[:, ::1])",
    nogil=True,
    cache=True,
)
def decode(
    rows: Rows,
    float_rows: FloatArray,
    sizes: IntArray,
    limits: IntArray,
    moduli: IntArray,
    smallest_id: int,
    is_float: bool,
    smallest: np.int32,
    offset: np.float32,
    dense_features: int,
    dense: FloatArray,
    indices: IntArray,
    labels: FloatArray,
) -> bool:
    """Fill labels, indices (of each batch [T, B]) and dense with max(x, smallest) + offset.

    Return whether all labels and indices are valid.

    float_rows: the same memory as `rows`; if `is_float`, its dense features are copied.
    limits: rows of each table, or of none if no indices are needed.
    dense: [batches, stride], each batch at the beginning of its row; the rest is set to 1.

    The inner loops have no branches, so that the compiler uses vector instructions.
    """
    tables = len(limits)
    integers, floats = (0, dense_features) if is_float else (dense_features, 0)
    invalid = False
    batch_start = 0
    for number, size in enumerate(sizes):
        batch_stop = batch_start + size
        dense[number, size * dense_features :] = 1
        for start in range(batch_start, batch_stop, _DECODED_TOGETHER):
            stop = min(start + _DECODED_TOGETHER, batch_stop)
            for row in range(start, stop):
                label = rows[row, 0]
                invalid |= (label < 0) | (label > 1)
                labels[row, 0] = label
                values = dense[number, (row - batch_start) * dense_features :]
                for column in range(integers):
                    values[column] = np.float32(max(rows[row, 1 + column], smallest)) + offset
                for column in range(floats):
                    values[column] = float_rows[row, 1 + column]
            for table in range(tables):
                column, limit, modulus = 1 + dense_features + table, limits[table], moduli[table]
                ids = indices[tables * batch_start + table * size :][start - batch_start : stop - batch_start]
                for position in range(stop - start):
                    index = np.int64(rows[start + position, column])
                    # The compiler moves the first test out of the loop. A division takes longer than all the rest.
                    if modulus > 0 and (index < 0 or index >= modulus):
                        invalid |= bool(index < smallest_id)
                        index %= modulus
                    invalid |= (index < 0) | (index >= limit)
                    ids[position] = index
        batch_start = batch_stop
    return not invalid


@numba.njit(
    "boolean(float32[:, ::1], int64[::1], int64, boolean[::1], float64[::1], float64[::1])",
    nogil=True,
    cache=True,
)
def transform(
    dense: FloatArray,
    sizes: IntArray,
    dense_features: int,
    is_log: npt.NDArray[np.bool_],
    means: npt.NDArray[np.float64],
    deviations: npt.NDArray[np.float64],
) -> bool:
    """Transform the dense features in place. Return whether all are finite or, where a value is missing, NaN.

    dense: [batches, stride], as `decode` fills it. The other arguments are those of each column: [dense_features].
    """
    valid = True
    for number, size in enumerate(sizes):
        for row in range(size):
            values = dense[number, row * dense_features :]
            for column in range(dense_features):
                value = np.float64(values[column])
                valid &= abs(value) != np.inf
                if math.isnan(value):
                    values[column] = 0
                elif is_log[column]:
                    values[column] = math.log(max(value, 0.0) + 1.0)
                else:
                    values[column] = (value - means[column]) / deviations[column]
    return valid


@numba.njit(
    "boolean(int32[:, ::1], int64, int64[::1], int64[::1], int64[::1], int32[::1])", nogil=True, cache=True
)
def take_ids(
    rows: Rows, first_id: int, sizes: IntArray, ids_per_table: IntArray, limits: IntArray, taken: Ids
) -> bool:
    """Fill `taken` with the ids of the batches in `rows`, of which there may be several per table.

    Return whether all are at least 0 and below the limit of their table.

    first_id: column of the first id. sizes: number of rows of each batch.
    taken: int32 [N * ids per row], batch after batch, each table by table, [size, ids_per_table[k]].
    """
    valid = True
    batch_start = done = 0
    for size in sizes:
        batch_stop, first_column = batch_start + size, first_id
        for table in range(len(limits)):
            count, limit = ids_per_table[table], limits[table]
            for row in range(batch_start, batch_stop):
                for number in range(count):
                    index = rows[row, first_column + number]
                    valid &= (index >= 0) & (index < limit)
                    taken[done + number] = index
                done += count
            first_column += count
        batch_start = batch_stop
    return valid


@numba.njit(
    "int64(int32[:, ::1], float32[:, ::1], int64[::1], int64[::1], int64, int64, boolean)", nogil=True, cache=True
)
def first_invalid(
    rows: Rows,
    float_rows: FloatArray,
    limits: IntArray,
    moduli: IntArray,
    smallest_id: int,
    dense_features: int,
    is_float: bool,
) -> int:
    """Return row * columns + column of the first invalid label, dense feature or index; one must be invalid.

    limits: rows of each table, or of none if the indices are valid. is_float: whether the dense features are
    float32 values, which may be NaN but not infinite.
    """
    columns = rows.shape[1]
    first_id = 1 + dense_features
    for row in range(len(rows)):
        if not 0 <= rows[row, 0] <= 1:
            return row * columns
        for column in range(1, first_id):
            if is_float and abs(float_rows[row, column]) == np.inf:
                return row * columns + column
        for table in range(len(limits)):
            index = np.int64(rows[row, first_id + table])
            if moduli[table] > 0:
                if index < smallest_id:
                    return row * columns + first_id + table
                index %= moduli[table]
            if not 0 <= index < limits[table]:
                return row * columns + first_id + table
    return -1
