"""The pickled part of a checkpoint, read without executing code and within limits.

Pickles can call any function. This reader knows only what checkpoints consist of: numbers, texts, lists, tuples,
dictionaries, NumPy scalars (the original implementation stored metrics as such) and dense tensors. It supports
pickle protocol 2, with which `torch.save` writes.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

# Far beyond any checkpoint (a benchmark model needs 4,000 operations), and few enough for any machine.
_MAX_OPERATIONS = 1_000_000
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 30
_MAX_DIMENSIONS = 8
MAX_PICKLE_BYTES = 64 << 20


class UnsafePickle(Exception):
    """The pickle refers to something that is not allowed. The message says what it contains or references."""


class DamagedPickle(Exception):
    """The pickle is not intact, or exceeds the limits. The message says what is wrong."""


class Storages(Protocol):
    """Source of the elements of tensors."""

    def __call__(self, key: str, dtype: torch.dtype, elements: int) -> torch.Tensor:
        """Return the elements that are stored as `key`, one-dimensional. DamagedPickle if there are others."""
        ...


class _Global:
    """A function or class that the pickle refers to by name."""

    __slots__ = ("call", "value")

    def __init__(self, call: Callable[..., Any] | None = None, value: torch.dtype | None = None) -> None:
        self.call = call
        self.value = value


class _NumpyType:
    """A NumPy data type under construction."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        if name not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
            raise UnsafePickle(f"it contains a NumPy scalar of type {_shown(name)}")
        self.dtype = np.dtype(f"<{name}")


def _scalar(kind: Any, content: Any) -> Any:
    """Return a NumPy scalar."""
    if not isinstance(kind, _NumpyType) or not isinstance(content, bytes) or len(content) != kind.dtype.itemsize:
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
        _set_item(result, key, value)
    return result


_STORAGES = {
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
_GLOBALS = {
    "collections.OrderedDict": _Global(_ordered),
    "torch._utils._rebuild_tensor": _Global(_tensor),
    "torch._utils._rebuild_tensor_v2": _Global(_tensor),
    "torch._utils._rebuild_parameter": _Global(_parameter),
    "torch.Size": _Global(_size),
    "numpy.dtype": _Global(_NumpyType),
    "numpy.core.multiarray.scalar": _Global(_scalar),
    "numpy._core.multiarray.scalar": _Global(_scalar),
    "_codecs.encode": _Global(_encode),
    **{f"torch.{name}Storage": _Global(value=dtype) for name, dtype in _STORAGES.items()},
}
_OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without elements (device meta)",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
}


def read_pickle(content: memoryview, storages: Storages) -> tuple[Any, int]:
    """Return the object that is pickled at the start of `content`, and the number of bytes of its pickle.

    UnsafePickle if it refers to anything but the types of a checkpoint; DamagedPickle if it is damaged or exceeds
    the limits.
    """
    reader = _Reader(content, storages)
    try:
        value = reader.read()
        _check_extent(value)
    except (
        IndexError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        struct.error,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise DamagedPickle(f"its pickle is damaged: {type(error).__name__}") from None
    return value, reader.position


class _Reader:
    """Machine that executes the operations of a pickle. Its stack consists of parts that begin at marks."""

    def __init__(self, content: memoryview, storages: Storages) -> None:
        self._content = content
        self._storages = storages
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.position = 0

    def read(self) -> Any:
        for _ in range(_MAX_OPERATIONS):
            operation = self._take(1)
            if operation == b".":
                if len(self._stack) != 1 or self._marked:
                    raise DamagedPickle("its pickle is damaged: the stack is not empty at the end")
                return self._stack.pop()
            if operation in _CONSTANTS:
                self._stack.append(_CONSTANTS[operation]())
            elif operation in _NUMBERS:
                (number,) = self._unpack(_NUMBERS[operation])
                self._stack.append(number)
            elif operation in _OPERATIONS:
                _OPERATIONS[operation](self)
            else:
                raise DamagedPickle(f"its pickle has the operation {operation!r}, which torch.save does not write")
        raise DamagedPickle(f"its pickle has more than {_MAX_OPERATIONS} operations")

    def _take(self, size: int) -> bytes:
        if size > len(self._content) - self.position:
            raise DamagedPickle("its pickle is truncated")
        self.position += size
        return bytes(self._content[self.position - size : self.position])

    def _unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._take(layout.size))

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _protocol(self) -> None:
        if self._take(1) != b"\2":
            raise DamagedPickle("its pickle has another protocol than 2")

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _global(self) -> None:
        names = []
        for _ in range(2):
            line = bytes(self._content[self.position : self.position + 200])
            name, newline, _ = line.partition(b"\n")
            if not newline:
                raise DamagedPickle("its pickle is damaged: a name does not end")
            self.position += len(name) + 1
            names.append(name.decode("utf-8", "replace"))
        full = ".".join(names)
        if full not in _GLOBALS:
            other = _OTHER_TENSORS.get(full)
            raise UnsafePickle(
                f"it contains {other}; only dense tensors are allowed"
                if other
                else f"it references {_shown(full)}, which could execute code when loaded"
            )
        self._stack.append(_GLOBALS[full])

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or function.call is None or type(arguments) is not tuple:
            raise DamagedPickle("its pickle is damaged: a call of something that is not a function")
        self._stack.append(function.call(*arguments))

    def _build(self) -> None:
        state, instance = self._stack.pop(), self._stack[-1]
        if isinstance(instance, _NumpyType):
            if state[1] not in ("<", "|", "="):
                raise DamagedPickle("a NumPy scalar has another byte order")
        elif not isinstance(instance, OrderedDict):  # its attributes are not used
            raise DamagedPickle(f"its pickle is damaged: attributes of {type(instance).__name__}")

    def _persistent(self) -> None:
        kind, storage_type, key, location, elements, *view = self._stack.pop()
        if kind != "storage" or type(key) is not str or type(elements) is not int or any(view):
            raise DamagedPickle("the storage of a tensor is damaged")
        if not isinstance(storage_type, _Global) or storage_type.value is None or type(location) is not str:
            raise DamagedPickle("the storage of a tensor is damaged")
        if location == "meta":
            raise UnsafePickle(
                "it contains a tensor without elements (device meta); only dense tensors are allowed"
            )
        self._stack.append(self._storages(key, storage_type.value, elements))

    def _append(self) -> None:
        value = self._stack.pop()
        self._list().append(value)

    def _appends(self) -> None:
        values = self._pop_mark()
        self._list().extend(values)

    def _list(self) -> list[Any]:
        found = self._stack[-1]
        if type(found) is not list:
            raise DamagedPickle("its pickle is damaged: an item of something that is not a list")
        return found

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _set_item(self._stack[-1], key, value)

    def _set_items(self) -> None:
        items = self._pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(self._stack[-1], key, value)

    def _tuple(self) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count:
            raise DamagedPickle("its pickle is damaged: a tuple is too short")
        self._stack[-count:] = [items]

    def _text(self) -> None:
        (size,) = self._unpack(struct.Struct("<I"))
        self._stack.append(str(self._take(size), "utf-8", "surrogatepass"))

    def _short_bytes(self) -> None:  # text of Python 2
        self._stack.append(self._take(self._take(1)[0]).decode())

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _get(self, layout: struct.Struct) -> None:
        (index,) = self._unpack(layout)
        self._stack.append(self._memo[index])

    def _put(self, layout: struct.Struct) -> None:
        (index,) = self._unpack(layout)
        self._memo[index] = self._stack[-1]


_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b")": tuple,
    b"]": list,
    b"}": dict,
}
_BYTE, _INDEX = struct.Struct("<B"), struct.Struct("<I")
_NUMBERS = {b"J": struct.Struct("<i"), b"K": _BYTE, b"M": struct.Struct("<H"), b"G": struct.Struct(">d")}
_OPERATIONS: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": _Reader._protocol,
    b"(": _Reader._mark,
    b"c": _Reader._global,
    b"R": _Reader._reduce,
    b"b": _Reader._build,
    b"Q": _Reader._persistent,
    b"a": _Reader._append,
    b"e": _Reader._appends,
    b"s": _Reader._set_item,
    b"u": _Reader._set_items,
    b"t": _Reader._tuple,
    b"\x85": lambda reader: reader._tuple_of(1),
    b"\x86": lambda reader: reader._tuple_of(2),
    b"\x87": lambda reader: reader._tuple_of(3),
    b"X": _Reader._text,
    b"U": _Reader._short_bytes,
    b"\x8a": _Reader._long,
    b"h": lambda reader: reader._get(_BYTE),
    b"j": lambda reader: reader._get(_INDEX),
    b"q": lambda reader: reader._put(_BYTE),
    b"r": lambda reader: reader._put(_INDEX),
}


def _set_item(target: Any, key: Any, value: Any) -> None:
    """Set an item of a dictionary. Keys are texts or 64-bit integers, as in checkpoints; others could collide."""
    if type(target) not in (dict, OrderedDict):
        raise DamagedPickle("its pickle is damaged: an item of something that is not a dictionary")
    if type(key) is not str and not (type(key) is int and -(1 << 63) <= key < 1 << 63):
        raise DamagedPickle(f"a key of a dictionary is of type {type(key).__name__}")
    target[key] = value


def _check_extent(root: Any) -> None:
    """Raise DamagedPickle if containers contain themselves, are nested deeply, or share too many values.

    The extent of a value is the number of values in it, where a shared value counts each time.
    """
    depth: dict[int, int] = {}
    extent: dict[int, int] = {}
    open_values: set[int] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        value, complete = stack.pop()
        children = _children(value)
        if isinstance(value, _Global | _NumpyType):
            raise DamagedPickle("its pickle is damaged: a type instead of a value")
        if complete:
            open_values.discard(id(value))
            depth[id(value)] = 1 + max((depth[id(child)] for child in children), default=0)
            extent[id(value)] = 1 + sum(extent[id(child)] for child in children)
            if depth[id(value)] > _MAX_DEPTH:
                raise DamagedPickle(f"its values are nested more than {_MAX_DEPTH} deep")
            if extent[id(value)] > _MAX_VALUES:
                raise DamagedPickle(f"it has more than {_MAX_VALUES} values")
        elif id(value) in open_values:
            raise DamagedPickle("its pickle is damaged: a value contains itself")
        elif id(value) not in depth:
            open_values.add(id(value))
            stack.append((value, True))
            stack += [(child, False) for child in children]


def _children(value: Any) -> list[Any]:
    """Return the values in a container."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else []


def _shown(name: object) -> str:
    """Return a name from the file without control characters, and not longer than a line."""
    return ascii(str(name)[:80])[1:-1]
