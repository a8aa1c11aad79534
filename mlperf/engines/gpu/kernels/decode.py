"""Decode rows of a binary file on the GPU: labels, dense features, and rows of the embedding tables.

B samples, T tables, L ids of a batch with several per table. Activations are float32 or bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from mlperf.data.schema import CRITEO, DenseFormat, RowSchema
from mlperf.engines.gpu.bags import Bags

# Values of a program instance. The ids of 32 samples of Criteo's data are a tile of 32 x 32, 8 values per thread
# of 4 warps.
VALUES_PER_PROGRAM = 1024
MAX_SAMPLES_PER_PROGRAM = 32
WARPS = 4
IDS_PER_PROGRAM = 1024  # 8 per thread

NO_POSITION = 2**62  # no invalid value so far
_NO_POSITION = tl.constexpr(NO_POSITION)  # a kernel can read a global only if it is a constexpr

_WIDTH_MULTIPLE = 8  # aligned rows make matrix products fast


def dense_width(schema: RowSchema) -> int:
    """Return the columns of the decoded dense features, of which the last ones are padding with zeros."""
    return max(1, -(-schema.dense_features // _WIDTH_MULTIPLE)) * _WIDTH_MULTIPLE


def positions_per_row(schema: RowSchema) -> int:
    """Return P: the position of an invalid value is its row in the file times P plus its column."""
    return triton.next_power_of_2(schema.columns)


def row_format(dense: DenseFormat, *, modulo_rows: bool) -> torch.Tensor:
    """Return how rows are decoded, int32 [4]: the fields of `dense`, and whether ids are taken modulo their table.

    The kernel reads it from the device, because a step is captured before the data is opened.
    """
    return torch.tensor([dense.smallest, dense.offset, dense.is_float, modulo_rows], dtype=torch.int32)


def dense_transforms(dense: DenseFormat, schema: RowSchema) -> torch.Tensor:
    """Return the transforms of the dense features, float64 [3, dense_width].

    For each column: whether the logarithm is taken, the mean and the deviation. Without transforms, all are 0.
    """
    table = torch.zeros(3, dense_width(schema), dtype=torch.float64)
    for column, each in enumerate(dense.transforms):
        table[:, column] = torch.tensor([each.is_log, each.mean, each.deviation], dtype=torch.float64)
    return table


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
    schema: RowSchema = CRITEO,
    transforms: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the dense features, labels and embedding rows of a batch, and record the first invalid value.

    An id outside its table, or a label other than 0 and 1, is replaced by a valid one, so that the batch can be
    processed; its position is recorded in `invalid`, and that of an infinite dense feature with `transforms`.

    rows: int32 [B, columns], undecoded rows of the file.
    table_sizes, table_starts: int32 [T], number of rows of each table, and its first row among all tables.
    first_row: int64 scalar, position in the file of the first row of the batch.
    row_format: int32 [4], see the function `row_format`.
    invalid: int64 scalar; set to the minimum of itself and the position of each invalid value (see
        POSITIONS_PER_ROW).
    modulus: if positive, ids are taken modulo it first.
    dtype: dtype of the dense features.
    by_table: order of the embedding rows, table by table instead of sample by sample.
    with_ids: whether the ids of `rows`, one per table, are used; the embedding rows are empty otherwise.
    schema: layout of the rows. With fewer tables, only their first ids are used.
    transforms: float64 [3, dense_width], see `dense_transforms`, used if they are not 0; None: there are none.

    Returns: dense features [B, dense_width], padded with zeros; labels float32 [B]; embedding rows int32 [B, T]
    or, `by_table`, [T, B], numbered over all tables.
    """
    samples, tables = len(rows), len(table_sizes) if with_ids else 0
    width = dense_width(schema)
    dense = torch.empty(samples, width, dtype=dtype, device=rows.device)
    tile = max(triton.next_power_of_2(width), triton.next_power_of_2(max(1, tables)))
    block = max(1, min(MAX_SAMPLES_PER_PROGRAM, VALUES_PER_PROGRAM // tile))
    labels = torch.empty(samples, device=rows.device)
    shape = (tables, samples) if by_table else (samples, tables)
    embedding_rows = torch.empty(shape, dtype=torch.int32, device=rows.device)
    _decode_kernel[(triton.cdiv(samples, block),)](
        rows,
        table_sizes,
        table_starts,
        first_row,
        row_format,
        transforms,
        dense,
        labels,
        embedding_rows,
        invalid,
        samples,
        MODULUS=modulus,
        BY_TABLE=by_table,
        TABLES=tables,
        ID_TILE=triton.next_power_of_2(max(1, tables)),
        COLUMNS=schema.columns,
        DENSE_FEATURES=schema.dense_features,
        DENSE_WIDTH=width,
        DENSE_TILE=triton.next_power_of_2(width),
        POSITIONS_PER_ROW=positions_per_row(schema),
        TRANSFORMS=transforms is not None,
        BLOCK=block,
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
    transforms,  # float64 [3, DENSE_WIDTH], or None
    dense,  # [B, DENSE_WIDTH], output
    labels,  # float32 [B], output
    embedding_rows,  # int32 [B, T], BY_TABLE [T, B], output
    invalid,  # int64 [], atomic minimum with the position of each invalid value
    samples,
    MODULUS: tl.constexpr,
    BY_TABLE: tl.constexpr,
    TABLES: tl.constexpr,
    ID_TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    DENSE_FEATURES: tl.constexpr,
    DENSE_WIDTH: tl.constexpr,
    DENSE_TILE: tl.constexpr,
    POSITIONS_PER_ROW: tl.constexpr,
    TRANSFORMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Decode BLOCK rows."""
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_batch = sample < samples
    row = rows + sample.to(tl.int64) * COLUMNS
    position = (tl.load(first_row) + sample) * POSITIONS_PER_ROW
    label = tl.load(row, mask=in_batch, other=0)
    label_is_invalid = in_batch & (label != 0) & (label != 1)
    first_invalid = tl.min(tl.where(label_is_invalid, position, _NO_POSITION), axis=0)
    tl.store(labels + sample, tl.where(label == 1, 1.0, 0.0), mask=in_batch)

    column = tl.arange(0, DENSE_TILE)
    is_feature = in_batch[:, None] & (column < DENSE_FEATURES)[None, :]
    integer = tl.load(row[:, None] + 1 + column[None, :], mask=is_feature, other=0)
    smallest = tl.load(row_format)
    value = tl.log(tl.load(row_format + 1).to(tl.float32) + tl.maximum(integer, smallest).to(tl.float32))
    value = tl.where(tl.load(row_format + 2) != 0, integer.to(tl.float32, bitcast=True), value)
    if TRANSFORMS:
        is_infinite = is_feature & (tl.load(row_format + 2) != 0) & (tl.abs(value) == float("inf"))
        dense_position = position[:, None] + 1 + column[None, :]
        first_infinite = tl.min(tl.min(tl.where(is_infinite, dense_position, _NO_POSITION), axis=1), axis=0)
        first_invalid = tl.minimum(first_invalid, first_infinite)
        value = _transformed(value, transforms, column, DENSE_WIDTH)
    value = tl.where(is_feature, value, 0.0)
    target = dense + sample[:, None] * DENSE_WIDTH + column[None, :]
    tl.store(target, value.to(dense.dtype.element_ty), mask=in_batch[:, None] & (column < DENSE_WIDTH)[None, :])

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
            ID_TILE,
            1 + DENSE_FEATURES,
        )
        first_invalid = tl.minimum(first_invalid, first_invalid_id)
    tl.atomic_min(invalid, first_invalid, mask=first_invalid < _NO_POSITION, sem="relaxed")


@triton.jit
def _transformed(value, transforms, column, DENSE_WIDTH: tl.constexpr):
    """Return dense features, float32 [BLOCK, DENSE_TILE], transformed; unchanged where the deviation is 0."""
    exists = column < DENSE_WIDTH
    is_log = tl.load(transforms + column, mask=exists, other=0.0)[None, :]
    mean = tl.load(transforms + DENSE_WIDTH + column, mask=exists, other=0.0)[None, :]
    deviation = tl.load(transforms + 2 * DENSE_WIDTH + column, mask=exists, other=0.0)[None, :]
    exact = value.to(tl.float64)
    logarithm = tl.log(tl.maximum(exact, 0.0) + 1.0)
    scaled = (exact - mean) / tl.where(deviation == 0, 1.0, deviation)
    transformed = tl.where(is_log != 0, logarithm, scaled).to(tl.float32)
    transformed = tl.where(tl.abs(value) >= 0, transformed, 0.0)  # NaN: missing
    return tl.where(deviation == 0, value, transformed)


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
    ID_TILE: tl.constexpr,
    FIRST_ID: tl.constexpr,
):
    """Store the embedding rows and return the position of the first invalid id."""
    sample = tl.program_id(0) * row.shape[0] + tl.arange(0, row.shape[0])
    table = tl.arange(0, ID_TILE)
    is_id = in_batch[:, None] & (table < TABLES)[None, :]
    index = tl.load(row[:, None] + FIRST_ID + table[None, :], mask=is_id, other=0)
    if MODULUS > 0:
        index = index % MODULUS
        index = tl.where(index < 0, index + MODULUS, index)
    size = tl.load(table_sizes + table, mask=table < TABLES, other=1)[None, :]
    start = tl.load(table_starts + table, mask=table < TABLES, other=0)[None, :]
    if tl.load(row_format + 3) != 0:
        index = tl.where(index < 0, index, index % size)  # a negative one is invalid
    id_is_invalid = is_id & ((index < 0) | (index >= size))
    id_position = position[:, None] + FIRST_ID + table[None, :]
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
