"""Decode rows of the Criteo binary file on the GPU: labels, dense features, and rows of the embedding tables.

B samples, T tables. Activations are float32 or bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.data.schema import CRITEO

# Samples per program instance. The ids of 32 samples are a tile of 32 x 32, 8 values per thread of 4 warps.
SAMPLES_PER_PROGRAM = 32
WARPS = 4

CRITEO.require_one_hot(__name__)

# Tile widths of the dense features and of the ids: powers of two, padded with zeros.
DENSE_WIDTH = triton.next_power_of_2(CRITEO.dense_features)
ID_WIDTH = triton.next_power_of_2(CRITEO.tables)

# The position of an invalid value is its row in the file times POSITIONS_PER_ROW plus its column.
POSITIONS_PER_ROW = triton.next_power_of_2(CRITEO.columns)
NO_POSITION = 2**62  # no invalid value so far

# A kernel can read a global only if it is a constexpr.
_COLUMNS = tl.constexpr(CRITEO.columns)
_DENSE_FEATURES = tl.constexpr(CRITEO.dense_features)
_FIRST_ID = tl.constexpr(CRITEO.first_id)
_DENSE_WIDTH = tl.constexpr(DENSE_WIDTH)
_ID_WIDTH = tl.constexpr(ID_WIDTH)
_POSITIONS_PER_ROW = tl.constexpr(POSITIONS_PER_ROW)
_NO_POSITION = tl.constexpr(NO_POSITION)


def decode(
    *,
    rows: torch.Tensor,
    table_sizes: torch.Tensor,
    table_starts: torch.Tensor,
    first_row: torch.Tensor,
    invalid: torch.Tensor,
    modulus: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the dense features, labels and embedding rows of a batch, and record the first invalid value.

    An id outside its table, or a label other than 0 and 1, is replaced by a valid one, so that the batch can be
    processed; its position is recorded in `invalid`.

    rows: int32 [B, columns], undecoded rows of the file.
    table_sizes, table_starts: int32 [T], number of rows of each table, and its first row among all tables.
    first_row: int64 scalar, position in the file of the first row of the batch.
    invalid: int64 scalar; set to the minimum of itself and the position of each invalid value (see
        POSITIONS_PER_ROW).
    modulus: if positive, ids are taken modulo it first.
    dtype: dtype of the dense features.

    Returns: dense features [B, DENSE_WIDTH], log(1 + x) padded with zeros; labels float32 [B]; embedding rows
    int32 [B, T], numbered over all tables.
    """
    samples, tables = len(rows), len(table_sizes)
    dense = torch.empty(samples, DENSE_WIDTH, dtype=dtype, device=rows.device)
    labels = torch.empty(samples, device=rows.device)
    embedding_rows = torch.empty(samples, tables, dtype=torch.int32, device=rows.device)
    _decode_kernel[(triton.cdiv(samples, SAMPLES_PER_PROGRAM),)](
        rows,
        table_sizes,
        table_starts,
        first_row,
        dense,
        labels,
        embedding_rows,
        invalid,
        samples,
        MODULUS=modulus,
        TABLES=tables,
        BLOCK=SAMPLES_PER_PROGRAM,
        num_warps=WARPS,
    )
    return dense, labels, embedding_rows


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["samples"])
def _decode_kernel(
    rows,  # int32 [B, columns]
    table_sizes,  # int32 [T]
    table_starts,  # int32 [T]
    first_row,  # int64 []
    dense,  # [B, DENSE_WIDTH], output
    labels,  # float32 [B], output
    embedding_rows,  # int32 [B, T], output
    invalid,  # int64 [], atomic minimum with the position of each invalid value
    samples,
    MODULUS: tl.constexpr,
    TABLES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Decode BLOCK rows."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_batch = sample < samples
    row = rows + sample.to(tl.int64) * _COLUMNS
    position = (tl.load(first_row) + sample) * _POSITIONS_PER_ROW
    label = tl.load(row, mask=in_batch, other=0)
    label_is_invalid = in_batch & (label != 0) & (label != 1)
    first_invalid = tl.min(tl.where(label_is_invalid, position, _NO_POSITION), axis=0)
    tl.store(labels + sample, tl.where(label == 1, 1.0, 0.0), mask=in_batch)

    column = tl.arange(0, _DENSE_WIDTH)
    is_feature = in_batch[:, None] & (column < _DENSE_FEATURES)[None, :]
    integer = tl.load(row[:, None] + 1 + column[None, :], mask=is_feature, other=0)
    value = tl.log(1.0 + tl.maximum(integer, 0).to(tl.float32))
    target = dense + sample[:, None] * _DENSE_WIDTH + column[None, :]
    tl.store(target, value.to(dense.dtype.element_ty), mask=in_batch[:, None])

    table = tl.arange(0, _ID_WIDTH)
    is_id = in_batch[:, None] & (table < TABLES)[None, :]
    index = tl.load(row[:, None] + _FIRST_ID + table[None, :], mask=is_id, other=0)
    if MODULUS > 0:
        index = index % MODULUS
        index = tl.where(index < 0, index + MODULUS, index)
    size = tl.load(table_sizes + table, mask=table < TABLES, other=1)[None, :]
    start = tl.load(table_starts + table, mask=table < TABLES, other=0)[None, :]
    id_is_invalid = is_id & ((index < 0) | (index >= size))
    id_position = position[:, None] + _FIRST_ID + table[None, :]
    first_invalid_id = tl.min(tl.min(tl.where(id_is_invalid, id_position, _NO_POSITION), axis=1), axis=0)
    index = tl.minimum(tl.maximum(index, 0), size - 1)
    tl.store(embedding_rows + sample[:, None] * TABLES + table[None, :], start + index, mask=is_id)
    first_invalid = tl.minimum(first_invalid, first_invalid_id)
    tl.atomic_min(invalid, first_invalid, mask=first_invalid < _NO_POSITION, sem="relaxed")
