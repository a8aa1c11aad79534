"""Decode rows of the Criteo binary file on the GPU: labels, dense features, and rows of the embedding tables.

B samples, T tables, L ids of a batch with several per table. Activations are float32 or bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.data.schema import CRITEO, DenseFormat
from mlperf.engines.gpu.bags import Bags

# Samples per program instance. The ids of 32 samples are a tile of 32 x 32, 8 values per thread of 4 warps.
SAMPLES_PER_PROGRAM = 32
WARPS = 4
IDS_PER_PROGRAM = 1024  # 8 per thread

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


def row_format(dense: DenseFormat, *, modulo_rows: bool) -> torch.Tensor:
    """Return how rows are decoded, int32 [4]: the fields of `dense`, and whether ids are taken modulo their table.

    The kernel reads it from the device, because a step is captured before the data is opened.
    """
    return torch.tensor([dense.smallest, dense.offset, dense.is_float, modulo_rows], dtype=torch.int32)


def decode(
    *,
    rows: torch.Tensor,
    table_sizes: torch.Tensor,
    table_starts: torch.Tensor,
    first_row: torch.Tensor,
    row_format: torch.Tensor,
    invalid: torch.Tensor,
    modulus: int,
    dtype: torch.dtype,
    by_table: bool = False,
    with_ids: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the dense features, labels and embedding rows of a batch, and record the first invalid value.

    An id outside its table, or a label other than 0 and 1, is replaced by a valid one, so that the batch can be
    processed; its position is recorded in `invalid`.

    rows: int32 [B, columns], undecoded rows of the file.
    table_sizes, table_starts: int32 [T], number of rows of each table, and its first row among all tables.
    first_row: int64 scalar, position in the file of the first row of the batch.
    row_format: int32 [4], see the function `row_format`.
    invalid: int64 scalar; set to the minimum of itself and the position of each invalid value (see
        POSITIONS_PER_ROW).
    modulus: if positive, ids are taken modulo it first.
    dtype: dtype of the dense features.
    by_table: order of the embedding rows, table by table instead of sample by sample.
    with_ids: whether the ids of `rows` are used; the embedding rows are empty otherwise.

    Returns: dense features [B, DENSE_WIDTH], padded with zeros; labels float32 [B]; embedding rows int32 [B, T]
    or, `by_table`, [T, B], numbered over all tables.
    """
    samples, tables = len(rows), len(table_sizes) if with_ids else 0
    dense = torch.empty(samples, DENSE_WIDTH, dtype=dtype, device=rows.device)
    labels = torch.empty(samples, device=rows.device)
    shape = (tables, samples) if by_table else (samples, tables)
    embedding_rows = torch.empty(shape, dtype=torch.int32, device=rows.device)
    _decode_kernel[(triton.cdiv(samples, SAMPLES_PER_PROGRAM),)](
        rows,
        table_sizes,
        table_starts,
        first_row,
        row_format,
        dense,
        labels,
        embedding_rows,
        invalid,
        samples,
        MODULUS=modulus,
        BY_TABLE=by_table,
        TABLES=tables,
        BLOCK=SAMPLES_PER_PROGRAM,
        num_warps=WARPS,
    )
    return dense, labels, embedding_rows


def number_rows(*, ids: torch.Tensor, table_starts: torch.Tensor, bags: Bags) -> torch.Tensor:
    """Return the embedding rows of valid `ids`, int32 [L] ordered as in `bags`, numbered over all tables."""
    samples = len(ids) // bags.ids_per_sample
    embedding_rows = torch.empty_like(ids)
    most = samples * bags.most_ids
    _number_rows_kernel[(triton.cdiv(most, IDS_PER_PROGRAM), bags.tables)](
        ids,
        table_starts,
        bags.sizes,
        bags.before,
        embedding_rows,
        samples,
        BLOCK=IDS_PER_PROGRAM,
        num_warps=WARPS,
    )
    return embedding_rows


# do_not_specialize: avoid a recompilation for the smaller last batch.
@triton.jit(do_not_specialize=["samples"])
def _decode_kernel(
    rows,  # int32 [B, columns]
    table_sizes,  # int32 [T]
    table_starts,  # int32 [T]
    first_row,  # int64 []
    row_format,  # int32 [4]
    dense,  # [B, DENSE_WIDTH], output
    labels,  # float32 [B], output
    embedding_rows,  # int32 [B, T], BY_TABLE [T, B], output
    invalid,  # int64 [], atomic minimum with the position of each invalid value
    samples,
    MODULUS: tl.constexpr,
    BY_TABLE: tl.constexpr,
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
    smallest = tl.load(row_format)
    value = tl.log(tl.load(row_format + 1).to(tl.float32) + tl.maximum(integer, smallest).to(tl.float32))
    value = tl.where(tl.load(row_format + 2) != 0, integer.to(tl.float32, bitcast=True), value)
    value = tl.where(is_feature, value, 0.0)
    target = dense + sample[:, None] * _DENSE_WIDTH + column[None, :]
    tl.store(target, value.to(dense.dtype.element_ty), mask=in_batch[:, None])

    if TABLES > 0:
        first_invalid_id = _decode_ids(
            row,
            position,
            in_batch,
            table_sizes,
            table_starts,
            row_format,
            embedding_rows,
            samples,
            MODULUS,
            BY_TABLE,
            TABLES,
        )
        first_invalid = tl.minimum(first_invalid, first_invalid_id)
    tl.atomic_min(invalid, first_invalid, mask=first_invalid < _NO_POSITION, sem="relaxed")


@triton.jit
def _decode_ids(
    row,
    position,
    in_batch,
    table_sizes,
    table_starts,
    row_format,
    embedding_rows,
    samples,
    MODULUS: tl.constexpr,
    BY_TABLE: tl.constexpr,
    TABLES: tl.constexpr,
):
    """Store the embedding rows and return the position of the first invalid id."""
    sample = tl.program_id(0) * row.shape[0] + tl.arange(0, row.shape[0])
    table = tl.arange(0, _ID_WIDTH)
    is_id = in_batch[:, None] & (table < TABLES)[None, :]
    index = tl.load(row[:, None] + _FIRST_ID + table[None, :], mask=is_id, other=0)
    if MODULUS > 0:
        index = index % MODULUS
        index = tl.where(index < 0, index + MODULUS, index)
    size = tl.load(table_sizes + table, mask=table < TABLES, other=1)[None, :]
    start = tl.load(table_starts + table, mask=table < TABLES, other=0)[None, :]
    if tl.load(row_format + 3) != 0:
        index = tl.where(index < 0, index, index % size)  # a negative one is invalid
    id_is_invalid = is_id & ((index < 0) | (index >= size))
    id_position = position[:, None] + _FIRST_ID + table[None, :]
    first_invalid_id = tl.min(tl.min(tl.where(id_is_invalid, id_position, _NO_POSITION), axis=1), axis=0)
    index = tl.minimum(tl.maximum(index, 0), size - 1)
    if BY_TABLE:
        target = embedding_rows + table.to(tl.int64)[None, :] * samples + sample[:, None]
    else:
        target = embedding_rows + sample[:, None] * TABLES + table[None, :]
    tl.store(target, start + index, mask=is_id)
    return first_invalid_id


@triton.jit(do_not_specialize=["samples"])
def _number_rows_kernel(
    ids,  # int32 [L]
    table_starts,  # int32 [T]
    sizes,  # int32 [T], ids of each table and sample
    before,  # int32 [T], ids of a sample before those of each table
    embedding_rows,  # int32 [L], output
    samples,
    BLOCK: tl.constexpr,
):
    """Number BLOCK ids of one table."""
    table = tl.program_id(1)
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_table = position < tl.load(sizes + table) * samples
    position += tl.load(before + table) * samples
    index = tl.load(ids + position, mask=in_table, other=0)
    tl.store(embedding_rows + position, tl.load(table_starts + table) + index, mask=in_table)
