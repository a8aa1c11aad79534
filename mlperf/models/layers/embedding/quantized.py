"""Embedding rows quantized to 8 or 4 bits, each row scaled to its own range.

R rows, W values in a row, L rows read.
"""

from __future__ import annotations

import torch

# Rows quantized at a time, to limit the temporary memory.
_CHUNK = 1 << 20

# A row begins with its minimum and its step, float32 each.
HEADER_BYTES = 8


def row_bytes(width: int, bits: int) -> int:
    """Return the bytes of a row of `width` values."""
    return HEADER_BYTES + (width if bits == 8 else (width + 1) // 2)


class QuantizedRows:
    """Float32 rows [R, W] as integers of `bits` bits, with the minimum and the step of each row.

    A step is (maximum - minimum) / (2^bits - 1); the error of a value is at most half a step. Minimum, step and
    values of a row lie next to each other in `stored`, uint8 [R, row_bytes], so that a lookup reads as few cache
    lines as possible. Two values of 4 bits share a byte: of n bytes, byte i has value i in its low half and value
    n + i in its high half.
    """

    def __init__(self, values: torch.Tensor, bits: int) -> None:
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {bits}")
        rows, self.width = values.shape
        self.bits = bits
        self.stored = torch.empty(rows, row_bytes(self.width, bits), dtype=torch.uint8, device=values.device)
        for start in range(0, rows, _CHUNK):
            piece = slice(start, start + _CHUNK)
            self._quantize(values[piece], self.stored[piece])

    @torch.no_grad()
    def _quantize(self, values: torch.Tensor, stored: torch.Tensor) -> None:
        minimum, maximum = values.aminmax(dim=1, keepdim=True)
        step = (maximum - minimum) / (2**self.bits - 1)
        step[step == 0] = 1.0  # all values of the row are equal: the codes are 0
        codes = ((values - minimum) / step).round().to(torch.uint8)
        if self.bits == 4:
            codes = torch.nn.functional.pad(codes, (0, self.width % 2))
            low, high = codes.chunk(2, 1)
            codes = low | high << 4
        stored[:, :HEADER_BYTES] = torch.cat((minimum, step), 1).view(torch.uint8)
        stored[:, HEADER_BYTES:] = codes

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return the rows `index` [L] as float32 [L, W]. `dim` must be 0."""
        assert dim == 0
        rows = self.stored.index_select(0, index)
        header = rows[:, :HEADER_BYTES].contiguous().view(torch.float32)  # (L, 2)
        codes = rows[:, HEADER_BYTES:]
        if self.bits == 4:
            codes = torch.cat((codes & 15, codes >> 4), 1)[:, : self.width]
        return codes * header[:, 1:] + header[:, :1]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.stored.nbytes
