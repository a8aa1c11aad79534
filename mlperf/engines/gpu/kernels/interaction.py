"""Embedding lookup and dot interaction on the GPU, forward and backward.

B samples, T tables, F = T + 1 features, D embedding dimension, R rows of all tables. Activations are float32 or
bfloat16; tables are float32, bfloat16 or float16.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from mlperf.data.schema import CRITEO
from mlperf.engines.gpu.triton_support import product_type, tile_size

# A program instance holds all features of a sample in one tile, [F, D] padded to powers of two.
MAX_FEATURES = triton.next_power_of_2(CRITEO.tables + 1)
MAX_DIMENSION = 256  # a tile of 32 x 256 takes 32 registers of each thread of 8 warps; the products take more

# Values of the tile per warp, by the kind of product: the fastest of 1, 2, 4 and 8 warps on an H200 for 26 tables
# and dimension 128 (bench/gpu/tune_kernels.py).
FORWARD_VALUES_PER_WARP = {"bf16": 4096, "tf32": 4096, "ieee": 1024}
BACKWARD_VALUES_PER_WARP = {"bf16": 2048, "tf32": 4096, "ieee": 4096}
MAX_WARPS = 8

# Upper bound of the padding columns behind the pairs; rows are padded to a multiple of 8 (`padded_width`).
_MAX_PADDING = tl.constexpr(8)


def interact(
    *,
    tables: torch.Tensor,
    embedding_rows: torch.Tensor,
    bottom: torch.Tensor,
    width: int,
    self_interaction: bool,
    allow_tf32: bool,
    warps: int | None = None,
) -> torch.Tensor:
    """Look up the embeddings and return the interaction [B, width] in the dtype of `bottom`.

    Each row holds the bottom MLP's output, then the dot products of the pairs of features (in the order of
    `mlperf.models.layers.interaction`), then zeros.

    tables: [R, D]. embedding_rows: int32 [B, T]. bottom: [B, D].
    width: D plus the number of pairs, rounded up to a multiple of 8.
    self_interaction: whether a feature is also paired with itself.
    allow_tf32: whether float32 products may be computed in TF32.
    warps: warps per program instance; default depends on the tile size and on the precision.
    """
    out = torch.empty(len(bottom), width, dtype=bottom.dtype, device=bottom.device)
    constants = _tile_constants(embedding_rows, bottom, width, self_interaction, allow_tf32)
    warps = warps or _warps(constants, FORWARD_VALUES_PER_WARP)
    _interact_kernel[(len(bottom),)](tables, embedding_rows, bottom, out, **constants, num_warps=warps)
    return out


def interact_backward(
    *,
    tables: torch.Tensor,
    embedding_rows: torch.Tensor,
    bottom: torch.Tensor,
    gradient: torch.Tensor,
    self_interaction: bool,
    allow_tf32: bool,
    warps: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of the bottom MLP's output [B, D] and of the embeddings looked up [B * T, D].

    gradient: [B, width], gradient of the output of `interact`. The other arguments are those of `interact`.
    """
    samples, dimension = bottom.shape
    count = samples * embedding_rows.shape[1]
    d_bottom = torch.empty_like(bottom)
    d_embeddings = torch.empty(count, dimension, dtype=bottom.dtype, device=bottom.device)
    constants = _tile_constants(embedding_rows, bottom, gradient.shape[1], self_interaction, allow_tf32)
    warps = warps or _warps(constants, BACKWARD_VALUES_PER_WARP)
    _interact_backward_kernel[(samples,)](
        tables, embedding_rows, bottom, gradient, d_bottom, d_embeddings, **constants, num_warps=warps
    )
    return d_bottom, d_embeddings


def _tile_constants(
    embedding_rows: torch.Tensor,
    bottom: torch.Tensor,
    width: int,
    self_interaction: bool,
    allow_tf32: bool,
) -> dict[str, Any]:
    table_count, dimension = embedding_rows.shape[1], bottom.shape[1]
    features, columns = tile_size(table_count + 1), tile_size(dimension)
    return {
        "T": table_count,
        "D": dimension,
        "WIDTH": width,
        "ITSELF": self_interaction,
        "FP": features,
        "DP": columns,
        "DOT": product_type(bottom.dtype),
        "PRECISION": "tf32" if allow_tf32 else "ieee",
    }


def _warps(constants: dict[str, Any], values_per_warp: dict[str, int]) -> int:
    kind = "bf16" if constants["DOT"] == tl.bfloat16 else constants["PRECISION"]
    return min(MAX_WARPS, max(1, constants["FP"] * constants["DP"] // values_per_warp[kind]))


@triton.jit
def _load_features(
    tables, embedding_rows, bottom, sample, T: tl.constexpr, D: tl.constexpr, FP: tl.constexpr, DP: tl.constexpr
):
    """Return the features of a sample, float32 [FP, DP]: the bottom MLP's output and one row of each table."""
    feature = tl.arange(0, FP)
    column = tl.arange(0, DP)
    is_embedding = (feature > 0) & (feature <= T)
    row = tl.load(embedding_rows + sample * T + feature - 1, mask=is_embedding, other=0).to(tl.int64)
    source = tables + row[:, None] * D + column[None, :]
    embeddings = tl.load(source, mask=is_embedding[:, None] & (column < D)[None, :], other=0.0).to(tl.float32)
    first = tl.load(bottom + sample * D + column, mask=column < D, other=0.0).to(tl.float32)
    return tl.where((feature == 0)[:, None], first[None, :], embeddings)


@triton.jit
def _interact_kernel(
    tables,  # [R, D]
    embedding_rows,  # int32 [B, T]
    bottom,  # [B, D]
    out,  # [B, WIDTH], output: bottom, the products of pairs, zeros
    T: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ITSELF: tl.constexpr,
    FP: tl.constexpr,
    DP: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Process one sample: its features are loaded once and multiplied in registers."""
    sample = tl.program_id(0).to(tl.int64)
    features = _load_features(tables, embedding_rows, bottom, sample, T, D, FP, DP).to(DOT)
    products = tl.dot(features, tl.trans(features), input_precision=PRECISION)  # (FP, FP)
    i = tl.arange(0, FP)[:, None]
    j = tl.arange(0, FP)[None, :]
    if ITSELF:
        is_pair = (i <= T) & (j <= i)
        pair = i * (i + 1) // 2 + j
        padding = D + (T + 1) * (T + 2) // 2 + tl.arange(0, _MAX_PADDING)
    else:
        is_pair = (i <= T) & (j < i)
        pair = i * (i - 1) // 2 + j
        padding = D + T * (T + 1) // 2 + tl.arange(0, _MAX_PADDING)
    target = out + sample * WIDTH
    tl.store(target + D + pair, products.to(out.dtype.element_ty), mask=is_pair)
    column = tl.arange(0, DP)
    copied = tl.load(bottom + sample * D + column, mask=column < D, other=0.0)
    tl.store(target + column, copied, mask=column < D)
    # Padding is multiplied by zero weights, so it must be finite.
    tl.store(target + padding, tl.zeros((_MAX_PADDING,), out.dtype.element_ty), mask=padding < WIDTH)


@triton.jit
def _interact_backward_kernel(
    tables,  # [R, D]
    embedding_rows,  # int32 [B, T]
    bottom,  # [B, D]
    gradient,  # [B, WIDTH], gradient of `out`
    d_bottom,  # [B, D], output
    d_embeddings,  # [B * T, D], output
    T: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ITSELF: tl.constexpr,
    FP: tl.constexpr,
    DP: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Process one sample: the symmetric matrix of the pairs' gradients times the features."""
    sample = tl.program_id(0).to(tl.int64)
    features = _load_features(tables, embedding_rows, bottom, sample, T, D, FP, DP).to(DOT)
    i = tl.arange(0, FP)[:, None]
    j = tl.arange(0, FP)[None, :]
    high = tl.maximum(i, j)
    low = tl.minimum(i, j)
    source = gradient + sample * WIDTH
    if ITSELF:
        pair = high * (high + 1) // 2 + low
        symmetric = tl.load(source + D + pair, mask=high <= T, other=0.0).to(tl.float32)
        symmetric = tl.where(i == j, 2.0 * symmetric, symmetric)  # d(f·f)/df = 2f
    else:
        pair = high * (high - 1) // 2 + low
        symmetric = tl.load(source + D + pair, mask=(high <= T) & (i != j), other=0.0).to(tl.float32)
    gradients = tl.dot(symmetric.to(DOT), features, input_precision=PRECISION)  # (FP, DP)
    feature = tl.arange(0, FP)
    column = tl.arange(0, DP)
    direct = tl.load(source + column, mask=column < D, other=0.0).to(tl.float32)
    first = tl.sum(tl.where((feature == 0)[:, None], gradients, 0.0), axis=0) + direct
    tl.store(d_bottom + sample * D + column, first.to(d_bottom.dtype.element_ty), mask=column < D)
    target = d_embeddings + (sample * T + feature - 1)[:, None] * D + column[None, :]
    is_embedding = ((feature > 0) & (feature <= T))[:, None] & (column < D)[None, :]
    tl.store(target, gradients.to(d_embeddings.dtype.element_ty), mask=is_embedding)
