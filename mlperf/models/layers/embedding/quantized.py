"""Rows in 8 or 4 bits: each row is scaled from its own least to its own greatest value.

R rows, W values in a row, L rows read.
"""

from __future__ import annotations

import torch

# Rows converted at a time, so that the conversion needs little memory besides its result.
_CHUNK = 1 << 20


class QuantizedRows:
    """A float32 block [R, W] as whole numbers of `bits` bits, with the least value and the step of each row.

    A value comes back with an error of at most half a step, a step being (greatest - least) / (2^bits - 1).
    Two values of 4 bits share a byte: column 2i in its low half, column 2i + 1 in its high half.
    """

    def __init__(self, block: torch.Tensor, bits: int) -> None:
        if bits not in (4, 8):
            raise ValueError(f"rows of {bits} bits: allowed are 4 and 8")
        rows, self.width = block.shape
        self.bits = bits
        columns = self.width if bits == 8 else (self.width + 1) // 2
        self.codes = torch.empty(rows, columns, dtype=torch.uint8, device=block.device)
        self.least = torch.empty(rows, 1, device=block.device)
        self.step = torch.empty(rows, 1, device=block.device)
        for start in range(0, rows, _CHUNK):
            piece = slice(start, start + _CHUNK)
            self._convert(block[piece], piece)

    @torch.no_grad()
    def _convert(self, values: torch.Tensor, piece: slice) -> None:
        least, greatest = values.aminmax(dim=1, keepdim=True)
        step = (greatest - least) / (2**self.bits - 1)
        step[step == 0] = 1.0  # a row of equal values: its codes are all 0
        codes = ((values - least) / step).round().to(torch.uint8)
        if self.bits == 4:
            codes = torch.nn.functional.pad(codes, (0, self.width % 2))
            codes = codes[:, 0::2] | codes[:, 1::2] << 4
        self.codes[piece], self.least[piece], self.step[piece] = codes, least, step

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return the rows `index` [L] as float32 [L, W]; `dim` is 0, as a tensor's would be."""
        assert dim == 0
        codes = self.codes.index_select(0, index)
        if self.bits == 4:
            codes = torch.stack((codes & 15, codes >> 4), 2).flatten(1)[:, : self.width]
        return codes * self.step.index_select(0, index) + self.least.index_select(0, index)

    @property
    def nbytes(self) -> int:
        """Memory of codes, least values and steps."""
        return self.codes.nbytes + self.least.nbytes + self.step.nbytes
