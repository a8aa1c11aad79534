"""Embedding rows quantized to 8 or 4 bits, each row scaled to its own range.

R rows, W values in a row, L rows read.
"""

from __future__ import annotations

import torch

# Rows quantized at a time, to limit the temporary memory.
_CHUNK = 1 << 20


class QuantizedRows:
    """Float32 rows [R, W] as integers of `bits` bits, with the minimum and the step of each row.

    A step is (maximum - minimum) / (2^bits - 1); the error of a value is at most half a step. Two values of 4 bits
    share a byte: column 2i is in its low half, column 2i + 1 in its high half.
    """

    def __init__(self, values: torch.Tensor, bits: int) -> None:
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {bits}")
        rows, self.width = values.shape
        self.bits = bits
        columns = self.width if bits == 8 else (self.width + 1) // 2
        self.codes = torch.empty(rows, columns, dtype=torch.uint8, device=values.device)
        self.min = torch.empty(rows, 1, device=values.device)
        self.step = torch.empty(rows, 1, device=values.device)
        for start in range(0, rows, _CHUNK):
            piece = slice(start, start + _CHUNK)
            self._quantize(values[piece], piece)

    @torch.no_grad()
    def _quantize(self, values: torch.Tensor, piece: slice) -> None:
        minimum, maximum = values.aminmax(dim=1, keepdim=True)
        step = (maximum - minimum) / (2**self.bits - 1)
        step[step == 0] = 1.0  # all values of the row are equal: the codes are 0
        codes = ((values - minimum) / step).round().to(torch.uint8)
        if self.bits == 4:
            codes = torch.nn.functional.pad(codes, (0, self.width % 2))
            codes = codes[:, 0::2] | codes[:, 1::2] << 4
        self.codes[piece], self.min[piece], self.step[piece] = codes, minimum, step

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return the rows `index` [L] as float32 [L, W]. `dim` must be 0."""
        assert dim == 0
        codes = self.codes.index_select(0, index)
        if self.bits == 4:
            codes = torch.stack((codes & 15, codes >> 4), 2).flatten(1)[:, : self.width]
        return codes * self.step.index_select(0, index) + self.min.index_select(0, index)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.codes.nbytes + self.min.nbytes + self.step.nbytes
