"""Tensors that a weight or the state of an optimizer cannot be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

_HUGE = 1 << 40
_TYPES = (
    *(torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.complex128),
    *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
)


def _converted(dtype: torch.dtype, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(dtype)


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    **{str(dtype).removeprefix("torch."): partial(_converted, dtype) for dtype in _TYPES},
    "a scalar": lambda tensor: torch.tensor(0.5),
    "of one value": lambda tensor: torch.full((1,), 0.5),
    "of one row": lambda tensor: torch.full((1, *tensor.shape[1:]), 0.5),
    "of one column": lambda tensor: torch.full((*tensor.shape[:-1], 1), 0.5),
    "of one more dimension": lambda tensor: torch.full((1, *tensor.shape), 0.5),
    "flat": lambda tensor: tensor.reshape(-1) + 0.5,
    "transposed": lambda tensor: (tensor + 0.5).t().contiguous() if tensor.dim() == 2 else tensor[:-1].clone(),
    "empty": lambda tensor: tensor[:0].clone(),
    "a row short": lambda tensor: tensor[:-1].clone(),
    "a row long": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "one number, expanded to terabytes": lambda tensor: torch.zeros(1).expand(_HUGE),
    "one row, expanded to terabytes": lambda tensor: torch.zeros(1, 4).expand(_HUGE, 4),
    "one value, expanded to its shape": lambda tensor: torch.full((1,), 0.5).expand(tensor.shape),
    "with overlapping rows": lambda tensor: tensor.reshape(-1).as_strided(tensor.shape, (1,) * tensor.dim()),
    "sparse": lambda tensor: tensor.to_sparse(),
    "sparse, huge": lambda tensor: torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), [1.0], (_HUGE,)),
    "sparse by rows": lambda tensor: tensor.reshape(len(tensor), -1).to_sparse_csr(),
    "on the meta device": lambda tensor: tensor.to("meta"),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor.reshape(-1), tensor.reshape(-1)[:1]]),
    "negated without being computed": lambda tensor: torch._neg_view(-tensor),
    "a list": lambda tensor: tensor.tolist(),
    "an array": lambda tensor: tensor.numpy(),
    "its storage": lambda tensor: tensor.clone().untyped_storage(),
    "in a list": lambda tensor: [tensor],
    "a parameter of other values": lambda tensor: torch.nn.Parameter(tensor[:-1].clone()),
    "None": lambda tensor: None,
    "text": lambda tensor: "\x1b[31m",
    "a number": lambda tensor: 0.5,
    "a dict": lambda tensor: {"a": tensor},
}
