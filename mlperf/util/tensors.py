"""Tensors in files: whether they are what a program expects, and parts of them that fit into a buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeGuard

import torch

from mlperf.util.printable import shown

# Bytes that are copied at a time. They are still in the cache when they are written or their CRC-32 is computed.
BLOCK_BYTES = 4 << 20


def is_plain(value: object) -> TypeGuard[torch.Tensor]:
    """Return whether a value is a tensor with elements in memory: dense, not quantized, not nested."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type != "meta"
        and not value.is_quantized
        and not value.is_nested
    )


def elements_overlap(tensor: torch.Tensor) -> bool:
    """Return whether elements of a tensor can share memory, as in an expanded tensor.

    Slices and transposed tensors have elements of their own.
    """
    if not tensor.numel():
        return False
    last = 0  # the last offset that the dimensions so far reach
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= last:
            return True
        last += stride * (size - 1)
    return False


def difference(value: object, expected: torch.Tensor) -> str | None:
    """Return how a value from a file differs from a dense tensor like `expected`, None if it is one.

    The text follows the name of the tensor: "is a list, must be ...".
    """
    if not isinstance(value, torch.Tensor):
        return f"is {shown(value)}, must be a dense tensor, {_of(expected)}"
    if not is_plain(value):
        return f"is not a dense tensor, must be one, {_of(expected)}"
    if value.dtype != expected.dtype or value.shape != expected.shape:
        return f"is {_of(value)}, must be {_of(expected)}"
    return "has elements that share memory" if elements_overlap(value) else None


def _of(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"


def pieces(tensor: torch.Tensor, max_elements: int) -> Iterator[torch.Tensor]:
    """Yield views of all elements of a tensor, in their order, with up to `max_elements` elements each.

    The shapes of the views depend on the shape of the tensor only.
    """
    if tensor.numel() <= max_elements:
        yield tensor
        return
    rows = max_elements // (tensor.numel() // len(tensor))
    if rows:
        yield from tensor.split(rows)
    else:
        for row in tensor:
            yield from pieces(row, max_elements)


def flattened(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor in one dimension, with a stride of 1.

    The stride that `view` gives to a single element is that which it had.
    """
    return tensor.as_strided((tensor.numel(),), (1,))


def staging_buffer(size: int, devices: Iterable[torch.device]) -> torch.Tensor:
    """Return `size` bytes of host memory for copies from or to `devices`: page-locked if one of them is a GPU."""
    is_pinned = any(device.type == "cuda" for device in devices)
    return torch.empty(size, dtype=torch.uint8, pin_memory=is_pinned)
