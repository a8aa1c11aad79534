"""The values that the pickle of a checkpoint may contain besides numbers, texts, lists and tuples.

A pickle refers to functions and classes by name. Each one that is allowed is replaced by a function of this file,
which checks its arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mlperf.util.printable import shown_name

_MAX_DIMENSIONS = 8


class UnsafePickle(Exception):
    """The pickle refers to something that is not allowed. The message says what it contains or references."""


class DamagedPickle(Exception):
    """The pickle is not intact, or exceeds the limits. The message says what is wrong."""


class Global:
    """A function or class that the pickle refers to by name."""

    __slots__ = ("call", "value")

    def __init__(self, call: Callable[..., Any] | None = None, value: torch.dtype | None = None) -> None:
        self.call = call
        self.value = value


class NumpyType:
    """A NumPy data type under construction."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        if name not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
            raise UnsafePickle(f"it contains a NumPy scalar of type {shown_name(name)}")
        self.dtype = np.dtype(f"<{name}")


def _scalar(kind: Any, content: Any) -> Any:
    """Return a NumPy scalar."""
    if not isinstance(kind, NumpyType) or not isinstance(content, bytes) or len(content) != kind.dtype.itemsize:
        raise DamagedPickle("a NumPy scalar is damaged")
    return np.frombuffer(content, kind.dtype)[0]


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes, which protocol 2 stores as text."""
    if encoding != "latin1" or not isinstance(text, str):
        raise DamagedPickle("a NumPy scalar is damaged")
    return text.encode("latin1")


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any = False, hooks: Any = (), metadata: Any = ()
) -> torch.Tensor:
    """Return a tensor over a storage. `gradient` and `hooks` matter only for gradients."""
    if metadata:  # the elements of such a tensor are the negative or conjugate ones of the storage
        raise UnsafePickle("it contains a tensor with pending operations; only dense tensors are allowed")
    numbers = (offset, *shape, *strides)
    if any(type(number) is not int or not 0 <= number < 1 << 62 for number in numbers):
        raise DamagedPickle("the shape of a tensor is damaged")
    if not isinstance(storage, torch.Tensor) or not len(shape) == len(strides) <= _MAX_DIMENSIONS:
        raise DamagedPickle("the shape of a tensor is damaged")
    elements = 1
    for size in shape:
        elements *= size
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # More elements than the storage has would be those of an expanded tensor, which could be of any size.
    if elements and (last >= len(storage) or elements > len(storage)):
        raise DamagedPickle(f"a tensor of shape {list(shape)} has {len(storage)} elements")
    return storage.as_strided(shape, strides, offset) if elements else storage.new_empty(shape)


def _parameter(data: Any, *ignored: Any) -> torch.Tensor:
    """Return the tensor of a parameter."""
    if not isinstance(data, torch.Tensor):
        raise DamagedPickle("a parameter is damaged")
    return data


def _size(shape: Any) -> tuple[Any, ...]:
    """Return a shape."""
    return tuple(shape)


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    """Return an ordered dictionary with `items`, pairs of keys and values."""
    result: OrderedDict[Any, Any] = OrderedDict()
    for key, value in items:
        set_item(result, key, value)
    return result


STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
GLOBALS = {
    "collections.OrderedDict": Global(_ordered),
    "torch._utils._rebuild_tensor": Global(_tensor),
    "torch._utils._rebuild_tensor_v2": Global(_tensor),
    "torch._utils._rebuild_parameter": Global(_parameter),
    "torch.Size": Global(_size),
    "numpy.dtype": Global(NumpyType),
    "numpy.core.multiarray.scalar": Global(_scalar),
    "numpy._core.multiarray.scalar": Global(_scalar),
    "_codecs.encode": Global(_encode),
    **{f"torch.{name}Storage": Global(value=dtype) for name, dtype in STORAGES.items()},
}
OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without elements (device meta)",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
}


def set_item(target: Any, key: Any, value: Any) -> None:
    """Set an item of a dictionary. Keys are texts or 64-bit integers, as in checkpoints; others could collide."""
    if type(target) not in (dict, OrderedDict):
        raise DamagedPickle("its pickle is damaged: an item of something that is not a dictionary")
    if type(key) is not str and not (type(key) is int and -(1 << 63) <= key < 1 << 63):
        raise DamagedPickle(f"a key of a dictionary is of type {type(key).__name__}")
    target[key] = value
