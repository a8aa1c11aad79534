"""Stochastic rounding of updated embedding rows to 16 bits (--embedding-precision).

Rounding to the nearest loses every change of a weight that is smaller than half the distance to the next
representable value, so that tables in bfloat16 would stop learning. Stochastic rounding keeps the change on
average.

The random bits are those of a counter-based generator, Philox4x32-10 (Salmon et al. 2011). They depend only on the
seed, the step, the row and the column, not on the device, the number of threads or the order of the updates. A
continued run therefore rounds like one that was not interrupted.

This module is the definition. The loops of the `cpu` engine (`mlperf/engines/cpu/loops/rounding.py`) and the
kernels of the `gpu` engine (`mlperf/engines/gpu/kernels/rounding.py`) compute the same bits, as
`test/test_row_updates.py` and `test/test_gpu_row_updates.py` check.

L rows, W values in a row.
"""

from __future__ import annotations

import torch

# Each value takes 16 bits of the 4 words of 32 bits that one call of the generator gives.
VALUES_PER_CALL = 8

# Constants of Philox4x32-10.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

_WORD = 0xFFFFFFFF


def philox(
    counter: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], key: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four random words of Philox4x32-10, int64 tensors of values from 0 to 2^32 - 1.

    counter: four words, tensors like the result. key: 64 bits.
    """
    c0, c1, c2, c3 = counter
    low, high = key & _WORD, key >> 32 & _WORD
    for _ in range(ROUNDS):
        # The product may exceed 63 bits; int64 arithmetic keeps all of its 64 bits.
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32 & _WORD) ^ c1 ^ low,
            second & _WORD,
            (first >> 32 & _WORD) ^ c3 ^ high,
            first & _WORD,
        )
        low, high = low + KEY_STEPS[0] & _WORD, high + KEY_STEPS[1] & _WORD
    return c0, c1, c2, c3


def random_bits(rows: torch.Tensor, width: int, *, seed: int, step: int) -> torch.Tensor:
    """Return 16 random bits for each value of `rows`, int64 [L, width].

    rows: int64 [L], numbered over all tables. width: W. seed: key of the generator, 64 bits. step: number of
    optimizer steps before this one.

    The counter is (low word of the row, its high word, column // 8, step). Of the four words of a call, columns 0
    and 1 take the low and the high half of the first, columns 2 and 3 those of the second, and so on.
    """
    calls = -(-width // VALUES_PER_CALL)
    shape = (len(rows), calls)
    group = torch.arange(calls, device=rows.device).expand(shape)
    words = philox(
        (
            (rows & _WORD).unsqueeze(1).expand(shape),
            (rows >> 32).unsqueeze(1).expand(shape),
            group,
            torch.full_like(group, step & _WORD),
        ),
        seed,
    )
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    return torch.stack(halves, 2).flatten(1)[:, :width]


def round_stochastically(values: torch.Tensor, dtype: torch.dtype, bits: torch.Tensor) -> torch.Tensor:
    """Return float32 `values` in `dtype`, torch.bfloat16 or torch.float16, each rounded up or down at random.

    bits: int64, 16 random bits for each value. A value between two representable ones is rounded away from zero
    with a probability that is proportional to its distance from the other. Representable values, infinities and
    NaN are unchanged. Beyond the largest finite value, the result may be infinite.
    """
    pattern = values.view(torch.int32).to(torch.int64) & _WORD
    rounded = _to_bfloat16(pattern, bits) if dtype == torch.bfloat16 else _to_float16(values, pattern, bits)
    halves = rounded.to(torch.int16).view(dtype)
    return torch.where(values.isfinite(), halves, values.to(dtype))


def _to_bfloat16(pattern: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Return the bit patterns in bfloat16, the upper half of a float32."""
    return pattern + bits >> 16


def _to_float16(values: torch.Tensor, pattern: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Return the bit patterns in float16: 10 bits of fraction; below 2^-14, multiples of 2^-24."""
    magnitude = pattern & 0x7FFFFFFF
    # 13 bits of the fraction are cut off, and the exponent's bias is 15 instead of 127.
    normal = (magnitude + (bits >> 3) >> 13) - (127 - 15 << 10)
    scaled = (values.abs() * 2.0**24).clamp(max=2.0**10)
    whole = scaled.floor()
    # All terms are exact in float32: the sum of the fraction and the random bits reaches 1.
    subnormal = whole.to(torch.int64) + ((scaled - whole) * 2.0**16 >= 2.0**16 - bits)
    rounded = torch.where(magnitude < 127 - 14 << 23, subnormal, normal.clamp(max=0x7C00))  # 0x7C00: infinity
    return pattern >> 16 & 0x8000 | rounded
